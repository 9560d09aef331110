"""The page's sections on what was on, scored, trained, summed, sent, agreed and claimed; see ``template``."""

PROTECTIONS = """\
{% if stop %}
<section class="panel" aria-labelledby="stop"><h2 id="stop">What stopped the run</h2>
<p>After {{ stop.done }} of {{ stop.planned }} rounds the run was {{ stop.status }}. The model is that of the last
completed round.</p>
{% if stop.lines %}
<ul>
{% for line in stop.lines %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% endif %}
</section>
{% endif %}

<section class="panel" aria-labelledby="protections"><h2 id="protections">What was on, and what was off</h2>
<ul class="states">
{% for item in protections %}
<li><span class="tag {{ 'on' if item.on else 'not' }}">{{ "ON" if item.on else "OFF" }}</span>
<span><b>{{ item.name }}.</b> {{ item.words }}</span></li>
{% endfor %}
</ul></section>

"""

UTILITY = """\
{% if not utility %}
<section aria-labelledby="utility"><h2 id="utility">What working together brought</h2>
<p>Scores stay at the sites. Each site scores the common model on test records of its own, in a folder of its own; no
score and no loss left a site, so none stands here and the coordinator knows none.</p></section>
{% else %}
<section aria-labelledby="utility"><h2 id="utility">What working together brought</h2>
{% if utility.sentence %}<p>{{ utility.sentence }}</p>{% endif %}

<p class="note">This is the {{ utility.view }}: the scores were computed from test records by whoever ran the
experiment, and the privacy numbers above do not cover them.</p>
{% if utility.table.rows %}
<ul class="legend" aria-label="Marks in the chart">
{% for item in utility.legend %}
<li>{{ item.mark }}{{ item.words }}</li>
{% endfor %}
</ul>
{{ utility.chart }}
<p class="note">{{ utility.note }}</p>
{{ draw(utility.table, "utility") }}
{% else %}
<p>No scores were computed.</p>
{% endif %}
{% for line in utility.left_out %}
<p>{{ line }}</p>
{% endfor %}
<p>To compare with: {{ utility.baselines }}.</p></section>
{% endif %}

{% if parts %}
<section aria-labelledby="parts"><h2 id="parts">Parts of the model, and who trained them</h2>
<p>{{ parts.regions }} {{ parts.still }}</p>
<p class="note">A bar is a region: as wide as it has parameters, darker the more sites hold it, hatched over the share
of rounds in which no sum moved it.</p>
{{ parts.chart }}
{{ draw(parts.table, "parts") }}
<p class="note">{{ parts.scores }}</p>
{% for line in parts.baselines %}
<p>{{ line }}</p>
{% endfor %}
</section>
{% endif %}

{% if crossings %}
<section aria-labelledby="crossings"><h2 id="crossings">What the holder of the cut model's piece saw</h2>
<p>The model was cut: the sites trained its ends, and another organisation held the piece in between. Values computed
from single records crossed to it in every step. They are personal data; noise on the weights of the ends does not
protect them.</p>
{% if crossings.unprotected %}
<ul class="alert">
{% for line in crossings.unprotected %}
<li><b>Without protection.</b> <span class="not">{{ line }}</span></li>
{% endfor %}
</ul>
{% endif %}
{{ draw(crossings.table, "crossings") }}
<p class="note">Clip: largest norm of one record's values; the owner adds noise to each of them before they leave.
Every release is priced as if the record might be any other, and nothing is gained by sampling: the holder knows whose
values it gets. This comes on top of every ε above, for the holder.</p>
</section>
{% endif %}

"""

ROUNDS = """\
<section aria-labelledby="rounds"><h2 id="rounds">Rounds</h2>
<p>{{ rounds.sentence }}</p>
{% if rounds.chart %}
<h3>Training loss, as the experimenter saw it</h3>
{{ rounds.chart }}
<details><summary>The losses in figures</summary><ul class="figures">
{% for line in rounds.losses %}
<li>{{ line }}</li>
{% endfor %}
</ul></details>
{% else %}
<p class="note">No training loss was recorded, so none is drawn.</p>
{% endif %}
{{ draw(rounds.table, "rounds") }}
</section>

{% if secagg %}
<section aria-labelledby="sums"><h2 id="sums">Which sums were opened</h2>
{% for cohort in secagg.cohorts %}
<p>{{ cohort.seen }}</p>
{% endfor %}
<dl class="terms">
<dt>Opened</dt><dd>{{ secagg.sets }}</dd>
{% for cohort in secagg.cohorts %}
<dt>Cohort</dt><dd>{{ cohort.listed }}</dd>
<dt>Thresholds</dt><dd>{{ cohort.t }} sites are needed to open a sum; it holds at least {{ cohort.min_survivors }}
sites, and every part of the model at least {{ cohort.min_cover }}; {{ cohort.n_c }} may be in league with the
server</dd>
{% endfor %}
<dt>Protocol</dt><dd>{{ secagg.protocol }} (<code>docs/protocol.md</code>), sums of whole numbers modulo
2<sup>{{ secagg.ring_bits }}</sup></dd>
<dt>Sites' keys</dt><dd>roster with digest <code>{{ secagg.roster }}</code></dd>
<dt>Transcript</dt><dd><code>{{ secagg.file }}</code>, SHA-256 <code>{{ secagg.sha256 }}</code></dd>
</dl>
{{ draw(secagg.table, "sums") }}
<details><summary>The model root of every sum: round, attempt, first digits</summary><ul class="figures">
{% for line in secagg.roots %}
<li><code>{{ line }}</code></li>
{% endfor %}
</ul></details>
<p class="note">In each attempt the holders of the sites' keys signed their masked inputs and the list of survivors,
together with the cohort, the thresholds and the one model root that all of them were given. {% if sites %}
The keys are those that the charter lists. That
{% else %}
Whose keys these are, that
{% endif %}
they trained on that model, and that there was no other attempt, no signature shows.</p></section>
{% endif %}

<section aria-labelledby="egress"><h2 id="egress">What left each site</h2>
{{ draw(egress, "egress") }}
{% if sites %}
{{ draw(sites.payloads, "egress") }}
<p class="note">Each site signed kind, round, size and SHA-256 of every payload before its last one, the statement
itself; the server's account of what it received is compared with that, payload by payload.</p>
{% endif %}
</section>
"""

AGREED = """\
{% if sites %}
<section aria-labelledby="charter"><h2 id="charter">What was agreed, and what the sites decided</h2>
<dl class="terms">
<dt>Charter</dt><dd>version {{ sites.charter.version }} of {{ sites.charter.federation }}, digest
<code>{{ sites.charter.digest }}</code>: compare it with the one that your site pinned</dd>
<dt>Application</dt><dd>SHA-256 <code>{{ sites.proposal.application }}</code></dd>
<dt>Study</dt><dd>SHA-256 <code>{{ sites.proposal.study }}</code></dd>
<dt>Strategy</dt><dd>{{ sites.proposal.strategy }}{% if sites.parameters %}: {{ sites.parameters }}{% endif %}</dd>
<dt>Data and purpose</dt><dd>{{ sites.proposal.asset }}, for {{ sites.proposal.purpose }}</dd>
{% if sites.privacy %}
<dt>Privacy asked for</dt><dd>{{ sites.privacy }}</dd>
{% endif %}
<dt>Server's log</dt><dd>{{ sites.log }}, {{ sites.entries }} when the report was signed</dd>
</dl>
{{ draw(sites.decisions, "charter") }}
{% if sites.refusals %}
{{ draw(sites.refusals, "charter") }}
{% else %}
<p>No site that signed refused a request of this run.</p>
{% endif %}
{% for line in sites.unattested %}
<p><b>No statement that holds</b> of {{ line }}.</p>
{% endfor %}
</section>
{% endif %}

"""

CLAIMS = """\
<section aria-labelledby="claims"><h2 id="claims">What is claimed, and what each claim is worth</h2>
<dl class="claims">
{% for claim in claims %}
<dt><code>{{ claim.id }}</code> <span class="kind">{{ claim.kind }}</span></dt>
<dd><p>{{ claim.says }}</p><p class="note">{{ claim.kind|capitalize }}: {{ claim.worth }}</p></dd>
{% endfor %}
</dl>
{% if other_kinds %}
<p class="note">Kinds that this report does not use:
{% for kind in other_kinds %}
<b>{{ kind.name }}</b>: {{ kind.worth }}
{% endfor %}
</p>
{% endif %}
<h3>Assumptions that all of this rests on</h3>
<ul>
{% for line in assumptions.lines %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% if assumptions.own %}
<p class="note">And, in the words of whoever signed, which nobody checks:</p>
<ul>
{% for line in assumptions.own %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% endif %}
</section>

{% if ledgers %}
<section aria-labelledby="ledgers"><h2 id="ledgers">Ledgers</h2>
<p>Every entry of every ledger that this run debited stands in <code>{{ ledgers.file }}</code>, from the first on, each
bound to the one before by its hash. The verifier reads them all and makes each decision about a budget again.</p>
{{ draw(ledgers.table, "ledgers") }}
<p class="note">That a ledger is the newest and the only one, no chain of hashes can show: compare its last hash with
one that somebody else kept.</p>
</section>
{% endif %}

<section aria-labelledby="signed"><h2 id="signed">Who signed</h2>
<p>{{ signed.sentence }} A site's signature says that what this report tells about that site is what the site has on
record itself.</p>
{{ draw(signed.table, "signed") }}
{% if signed.audited %}
<h3 id="audited">The report that was audited</h3>
<p>An auditor took up the report of the run, whole and signed, and added what was measured on {{ signed.audited.made }}.
Nothing else in it was changed, which the verifier compares. The report inside has SHA-256
<code>{{ signed.audited.sha256 }}</code>.</p>
{{ draw(signed.audited.table, "audited") }}
{% endif %}
</section>

"""
