"""The report page as a jinja2 template: one self-contained document, no scripts that run, nothing fetched.

A string in a module, because the Flower bundle carries ``.py`` and ``.json`` files only. Autoescape is on; the only
values that are markup already are the charts, the style sheet and the strictly decoded envelope.
"""

PAGE = """\
{% macro draw(table, section) %}
<div class="wide" role="region" tabindex="0" aria-labelledby="{{ section }}">
<table><caption>{{ table.caption }}</caption>
<thead><tr>
{% for column in table.columns %}
<th scope="col"{% if column.numeric %} class="num"{% endif %}>{{ column.name }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if table.last_is_sum and loop.last %} class="sum"{% endif %}>
{% for cell in row %}
{% if loop.first %}
<th scope="row">{{ cell }}</th>
{% else %}
<td{% if table.columns[loop.index0].numeric %} class="num"{% endif %}>{{ cell }}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<!DOCTYPE html>
<html lang="en-GB">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ csp }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>Privacy report: {{ run.title }}</title>
<style>{{ css }}</style>
</head>
<body>
<header>
<p class="kicker"><b>Collegium privacy report</b><span>run {{ run.id }}, {{ status }} {{ finished }}</span></p>
<h1>{{ run.title }}</h1>
<p class="lead">{{ summary }}</p>
<p class="source">Data: {{ run.data }}</p>
</header>
<main>
{% if not privacy %}
<div class="alarm" role="note"><strong>No differential privacy was applied.</strong>
<p>Nothing in this report limits what can be learnt about a single person's record from the model or from the updates
that the sites sent. Treat both as personal data unless you can show otherwise.</p></div>
{% endif %}
{% if privacy|length > 1 %}
<p class="lead">{{ privacy|length }} promises hold side by side. Each has its own ledger, and their numbers are never
added.</p>
{% endif %}
{% for block in privacy %}
{% if privacy|length > 1 %}
<h2 class="promise" id="promise-{{ block.placement }}">{{ block.title }}</h2>
{% endif %}
<dl class="answers">
<div><dt>Who is protected</dt><dd><p>{{ block.who }} The unit is one <b>{{ block.unit }}</b>;
{{ block.shared }}</p></dd></div>
<div><dt>From whom</dt><dd><p>{{ block.whom }}</p></dd></div>
<div><dt>How strongly</dt><dd>
<p class="big">A 50 % suspicion that {{ block.suspected[0] }} rises to at most about
<b>{{ block.after }}</b>, whatever else is known about that {{ block.suspected[1] }}.</p>
{{ block.chart }}
<dl class="terms">
<dt>Guarantee</dt><dd><b class="guarantee">&epsilon; &le; {{ block.epsilon }} at &delta; = {{ block.delta }}</b>
for each {{ block.unit }}{% if block.worst %} ({{ block.worst }}, the site with the largest &epsilon;; sites are never
averaged){% endif %}, against {{ block.against }}.
Outcomes for which the bound may fail have a total probability of at most {{ block.delta }}</dd>
<dt>Compared with</dt><dd>{{ block.relation_words }} (<code>{{ block.relation }}</code>). If a {{ block.unit }} may be
swapped for any other instead: &epsilon;&nbsp;&le;&nbsp;{{ block.replace_one }}</dd>
<dt>Sampling</dt><dd>{{ block.sampling }}</dd>
<dt>Noise</dt><dd>{{ block.noise }}</dd>
<dt>Accountant</dt><dd>{{ block.accountant }}{% if block.rdp %}; by RDP, a looser method:
&epsilon;&nbsp;&le;&nbsp;{{ block.rdp }}{% endif %}</dd>
</dl></dd></div>
<div><dt>Over all runs</dt><dd>
{% if block.lifetime %}
<p>The upright line is each ledger's whole budget, for this run and every other on the same data. What is spent of it
is summed up by {{ block.lifetime.filters }}, which stays valid when a run is planned by people who saw the runs
before.{% if block.lifetime.asserted %} Some of the runs drew noise in floating point: this sum is asserted only.
{% endif %}</p>
{{ block.lifetime.chart }}
{% elif sites %}
<p>Every ledger keeps the charter's budget for all runs on the same data, and has no room for a run beyond it. What is
left of it is not in this report: &epsilon; is that of this run.</p>
{% else %}
<p>No budget was set. &epsilon; is that of this run; every other run on the same data costs privacy as well, and this
report does not count it.</p>
{% endif %}
</dd></div>
<div><dt>How sure is this</dt><dd><p>The numbers follow from the listed steps, and anyone can recompute them offline.
{% if block.kind == "proved" %}
They are <b>proved</b> as far as arithmetic goes: the noise is drawn as exact integers, so nothing is lost to rounding.
That the steps ran as listed is asserted by the software.
{% else %}
That the steps ran as listed, and that floating-point noise is as good as the noise it stands for, is <b>asserted</b>
by the software, not proved.
{% endif %}
</p></dd></div>
</dl>
{% else %}
<dl class="answers">
<div><dt>Who is protected</dt><dd><p>Nobody, in the sense of a mathematical bound.</p></dd></div>
<div><dt>What is shown</dt><dd><p>Which model came out, what each site sent, and how well the model works.</p>
</dd></div>
</dl>
{% endfor %}

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

<section class="panel warn" aria-labelledby="not-protected"><h2 id="not-protected">What is not protected</h2>
<ul>
{% for line in not_protected %}
<li>{{ line }}</li>
{% endfor %}
</ul></section>
<section class="panel" aria-labelledby="protections"><h2 id="protections">What was on, and what was off</h2>
<ul class="states">
{% for item in protections %}
<li><span class="tag {{ 'on' if item.on else 'not' }}">{{ "ON" if item.on else "OFF" }}</span>
<span><b>{{ item.name }}.</b> {{ item.words }}</span></li>
{% endfor %}
</ul></section>

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

{% for block in privacy %}
{% set id = "spent-" + block.placement %}
<section aria-labelledby="{{ id }}"><h2 id="{{ id }}">What privacy {{
"the server spent" if block.placement == "central" else "each site spent" }}{% if privacy|length > 1 %}:
{{ block.title|lower }}{% endif %}</h2>
<p>The solid bar is what was spent; the dashed outline is what the plan would have spent had every retry been used; the
upright line is the limit, &epsilon; = {{ block.target }}.</p>
{{ block.budget_chart }}
{{ draw(block.table, id) }}
{% if block.hypothetical %}
<h3 id="shares">If more or fewer strangers brought a share of the noise</h3>
<p>More sites in a sum bring more noise, but earn no refund. Fewer than were counted on would be a breach of what the
thresholds promise, or a league of more sites than was assumed.</p>
{{ draw(block.hypothetical, "shares") }}
{% endif %}
</section>
{% endfor %}

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

<section aria-labelledby="claims"><h2 id="claims">What is claimed, and what each claim is worth</h2>
<dl class="claims">
{% for claim in claims %}
<dt><code>{{ claim.id }}</code> <span class="kind">{{ claim.kind }}</span></dt>
<dd><p>{{ claim.says }}</p><p class="note">{{ claim.kind|capitalize }}: {{ claim.worth }}</p></dd>
{% endfor %}
</dl>
<p class="note">Kinds that this report does not use:
{% for kind in other_kinds %}
<b>{{ kind.name }}</b>: {{ kind.worth }}
{% endfor %}
</p>
{% if assumptions %}
<h3>Assumptions that all of this rests on</h3>
<ul>
{% for line in assumptions %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% endif %}
</section>

<section aria-labelledby="verify"><h2 id="verify">Check this report yourself</h2>
<p>The page carries the signed report inside it. With version {{ tool.version }} of Collegium installed, and no
network:</p>
<pre>collegium verify report.html --trust keys.txt</pre>
<p><code>keys.txt</code> holds the public keys that you trust, one a line. Get this run's key from the people who ran
it by another way than this file; without <code>--trust</code> the check says AUTHENTICITY NOT CHECKED, since a forger
can sign with a key of their own. Files beside the page are checked with it: <code>{{ model.file }}</code> by its
digest{% if secagg %}, <code>{{ secagg.file }}</code> by every signature of the sites{% endif %}{% if sites %},
<code>{{ sites.files[0] }}</code> by the officers', <code>{{ sites.files[1] }}</code> by the sites'{% endif %}. Exit
code 0: all holds. 1: a claim fails. 2: not a usable report. 3: something was not checked.</p>
<dl class="terms">
<dt>Public key</dt><dd><code>{{ public_key }}</code></dd>
<dt>Key id</dt><dd><code>{{ keyid }}</code></dd>
<dt>Model</dt><dd><code>{{ model.file }}</code>, {{ model.size }}, SHA-256 <code>{{ model.sha256 }}</code></dd>
<dt>Run</dt><dd>{{ noun }} {{ run.scenario }}, strategy {{ run.strategy }}, {{ engine }}, seed {{ run.seed }},
{{ started }} to {{ finished }}</dd>
</dl></section>
</main>
<footer><p>Drawn by Collegium {{ tool.version }} from the signed report that is part of this file; the same report
always draws the same page. It is evidence for an assessment, not a statement that data are anonymous.</p></footer>
{{ envelope }}
</body>
</html>
"""
