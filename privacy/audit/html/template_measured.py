"""The page's sections on what was spent, tested, attacked, and on what a reviewer asks; see ``template``."""

SPENT = """\
{% for block in privacy %}
{% set id = "spent-" + block.placement %}
<section aria-labelledby="{{ id }}"><h2 id="{{ id }}">What privacy {{
"the server spent" if block.placement == "central" else "each site spent" }}{% if privacy|length > 1 %}:
{{ block.title|lower }}{% endif %}</h2>
<p>The solid bar is what was spent; the dashed outline is what the plan would have spent had every retry been used; the
upright line is the limit, &epsilon; = {{ block.target }}.</p>
{{ block.budget_chart }}
{{ draw(block.table, id) }}
<dl class="terms">
<dt>Guarantee</dt><dd>outcomes for which &epsilon; &le; {{ block.epsilon }} may fail have a total probability of at most
{{ block.delta }}</dd>
<dt>Compared with</dt><dd>{{ block.relation_words }} (<code>{{ block.relation }}</code>). If a {{ block.unit }} may be
swapped for any other instead: &epsilon;&nbsp;&le;&nbsp;{{ block.replace_one }}</dd>
<dt>Sampling</dt><dd>{{ block.sampling }}</dd>
<dt>Noise</dt><dd>{{ block.noise }}</dd>
<dt>Accountant</dt><dd>{{ block.accountant }}{% if block.rdp %}; by RDP, a looser method:
&epsilon;&nbsp;&le;&nbsp;{{ block.rdp }}{% endif %}</dd>
</dl>
{% if block.curves.course or block.curves.tradeoff %}
<div class="pair">
{% if block.curves.course %}
<div><h3>Over the rounds</h3>
<p class="note">At most so much of &epsilon; was spent by the end of a round{% if block.worst %}, at
{{ block.curves.holder }}{% endif %}. The ring is the claim.</p>
{{ block.curves.course.chart }}
<details><summary>In figures</summary><ul class="figures">
{% for line in block.curves.course.figures %}
<li>{{ line }}</li>
{% endfor %}
</ul></details></div>
{% endif %}
{% if block.curves.tradeoff %}
<div><h3>For other choices of &delta;</h3>
<p class="note">The same steps have a larger &epsilon; at a smaller &delta;, the probability of failing. The ring is the
claim.</p>
{{ block.curves.tradeoff.chart }}
<details><summary>In figures</summary><ul class="figures">
{% for line in block.curves.tradeoff.figures %}
<li>{{ line }}</li>
{% endfor %}
</ul></details></div>
{% endif %}
</div>
{% endif %}
{% if block.hypothetical %}
<h3 id="shares">If more or fewer strangers brought a share of the noise</h3>
<p>More sites in a sum bring more noise, but earn no refund. Fewer than were counted on would be a breach of what the
thresholds promise, or a league of more sites than was assumed.</p>
{{ draw(block.hypothetical, "shares") }}
{% endif %}
<h3>Over all runs</h3>
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
<h3>How sure this is</h3>
<p>The numbers follow from the listed steps, and anyone can recompute them offline.
{% if block.kind == "proved" %}
They are <b>proved</b> as far as arithmetic goes: the noise is drawn as exact integers, so nothing is lost to rounding.
That the steps ran as listed is asserted by the software.
{% else %}
That the steps ran as listed, and that floating-point noise is as good as the noise it stands for, is <b>asserted</b>
by the software, not proved.
{% endif %}
</p>
</section>
{% endfor %}

"""

TESTED = """\
{% if tested %}
<section aria-labelledby="tested"><h2 id="tested">Tests of the code that adds noise</h2>
<p>{{ tested.sentence }} They ran when the run began, on made-up data, through the code that clips and adds noise.
That the run then used the same code is each site's word.
Correct code fails any of a path's tests with a probability of at most {{ tested.error }}.</p>
<ul class="meanings">
{% for name, meaning in tested.meanings %}
<li><b>{{ name }}</b> {{ meaning }}</li>
{% endfor %}
</ul>
{{ tested.strip }}
{% if tested.failed %}
<ul class="failures">
{% for line in tested.failed %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% endif %}
<h3>Would the tests have noticed?</h3>
<p>A defect was made on purpose in {{ tested.n_controls }} of the same code.
{% if tested.missed %}
The tests did <b>not</b> see all of them, so a pass shows little: {{ tested.missed|join("; ") }}.
{% else %}
The tests saw every one.
{% endif %}
</p>
{{ tested.controls }}
<details><summary>Every test in figures</summary>
{{ draw(tested.table, "tested") }}
</details>
</section>
{% endif %}

"""

ATTACKS = """\
{% macro verdict(word) %}
<span class="tag {{ 'on' if word == 'no violation' else 'not' }}">{{ word }}</span>
{% endmacro %}
{% macro legend(marks) %}
<ul class="legend" aria-label="Marks in the chart">
{% for item in marks %}
<li>{{ item.mark }}{{ item.words }}</li>
{% endfor %}
</ul>
{% endmacro %}
{% macro panels(items, kind) %}
<div class="panels {{ kind }}">
{% for item in items %}
<figure>{{ item.chart }}<figcaption><b>{{ item.name }}</b>{% if item.more %} {{ item.more }}{% endif %}</figcaption>
</figure>
{% endfor %}
</div>
{% endmacro %}
{% if one_run or black_box or membership or one_shot or inversion %}
<section aria-labelledby="attacks"><h2 id="attacks">What attacks found</h2>
<p>An attack can show that a promise is broken, never that it holds: all that it measures is a lower bound, and that
bound stays below the formal value while the code is right. So every attack has a control on which it must succeed. No
bound here is &ldquo;the&rdquo; &epsilon;.</p>
{% for path in one_run %}
{% set id = "one-run-path-" ~ loop.index %}
<h3 id="{{ id }}" class="judged">Canaries in one release{% if one_run|length > 1 %}: {{ path.title|lower }}{% endif %}
{{ verdict(path.verdict) }}</h3>
<p>{{ path.canaries }} made-up contributions took part in one release, or did not, by coins that were committed to
beforehand. The release carries the noise of the whole run. The attacker knows everything else in it and guesses the
coins: what such guesses show must not lie in the shaded part, beyond the formal value &epsilon; = {{ path.formal }} at
&delta; = {{ path.delta }}; with a defect it should.</p>
{% if path.powerless %}
<p class="alert"><b>No power by counting guesses:</b> even an attacker who is always right would stay below the formal
value. Only the bound from two Gaussians could exceed it.</p>
{% endif %}
{% if path.silent %}
<p class="alert"><b>Not noticed:</b> {{ path.silent|join(", ") }}. What an audit finds that misses a defect shows
little.</p>
{% endif %}
{{ legend(path.legend) }}
{{ path.chart }}
<details><summary>The bounds in figures</summary>
{{ draw(path.table, id) }}
</details>
{% endfor %}
{% if black_box %}
<h3 id="black-box-heading" class="judged">Canaries in the training data {{ verdict(black_box.verdict) }}</h3>
<p>A copy of the training had {{ black_box.canaries }} records with a wrong label beside {{ black_box.records }} real
ones; each took part or not by a coin. The attacker sees the model alone, and accuses the records that it has learnt
best. Trained as in the run: {{ black_box.models[0] }}. Control, without privacy: {{ black_box.models[1] }}.
{% if not black_box.formal %}
This run promises no &epsilon; that a bound could exceed.
{% endif %}</p>
{% if black_box.powerless %}
<p class="alert"><b>No power:</b> even an attacker who is always right would stay below the formal value.</p>
{% endif %}
{{ legend(black_box.legend) }}
{{ black_box.chart }}
<details><summary>The bounds in figures</summary>
{{ draw(black_box.table, "black-box-heading") }}
</details>
{% endif %}
{% if membership %}
<h3 id="membership-heading" class="judged">Losses of real records {{ verdict(membership.verdict) }}</h3>
<p>Records that trained the model against records that were kept back: whoever has a small loss is accused of having
trained. The line is how many members are found (upwards) for how many wrongly accused; the dashed diagonal is guessing.
{% if membership.bounded %}
Differential privacy rules the shaded part out.
{% endif %}
Upright strokes are {{ membership.confidence }} intervals.</p>
{{ panels(membership.panels, "curves") }}
<details><summary>The curves in figures</summary>
{{ draw(membership.table, "membership-heading") }}
</details>
{% endif %}
{% if one_shot %}
<h3 id="one-shot-heading" class="judged">Canary sites in a copy of the run <span class="tag">estimate</span></h3>
<p>{{ one_shot.canaries }} made-up sites took part in a copy of the run, each with an update in a random direction of
{{ one_shot.dimension }} dimensions. How far the model went in these directions gives an estimate of &epsilon; for a
whole site (Andrew et al. 2024). It is no bound, so it has no verdict.</p>
{{ draw(one_shot.table, "one-shot-heading") }}
{% endif %}
{% if inversion %}
<h3 id="inversion-heading" class="judged">One update turned back into a record {{ verdict(inversion.verdict) }}</h3>
<p>A made-up record was trained on for one step, and its update turned back into a record, as a curious server would.
In the clear this must succeed; as it left the site, it must come no nearer than a guess without seeing anything, give
or take 1 dB.</p>
{{ panels(inversion.panels, inversion.form) }}
<details><summary>Every value in figures</summary>
{{ draw(inversion.table, "inversion-heading") }}
</details>
{% endif %}
</section>
{% endif %}

"""

ASSESSMENT = """\
<section aria-labelledby="assessment"><h2 id="assessment">Questions that a reviewer asks</h2>
<p>Each is put so that &ldquo;yes&rdquo; is the better answer, in the layers of NIST SP 800-226, from the parameter down
to what all of it rests on. Beside it stands the claim of this report that bears it out.</p>
{% for layer in questions %}
<h3>{{ layer.name }}</h3>
<ul class="questions">
{% for row in layer.rows %}
<li><span class="tag {{ 'on' if row.answer == 'yes' else 'not' if row.answer == 'no' else 'absent' }}">{{
row.answer|upper }}</span><span>{{ row.question }}</span><code>{{ row.evidence }}</code></li>
{% endfor %}
</ul>
{% endfor %}
<h3>Attacks that a regulator asks about</h3>
<p class="note">After EDPB Opinion 28/2024: YES where it was tried. That it was not does not say that it fails.</p>
<ul class="questions">
{% for row in asked %}
{% set tried = row.evidence != '–' %}
{% set bad = ': violation' in row.result or 'inconclusive' in row.result %}
<li><span class="tag {{ 'not' if bad else 'on' if tried else 'absent' }}">{{ 'YES' if tried else 'NO' }}</span>
<span>{{ row.name }} <span class="soft">{{ row.result|capitalize }}.</span></span><code>{{ row.evidence }}</code></li>
{% endfor %}
</ul>
<h3>For a data-protection impact assessment</h3>
<p class="note">Risks and measures in the sense of GDPR Article 35(7); how likely and how grave a risk is for people,
is for the controller to judge. <code>collegium report --dpia</code> writes this as a document of its own.</p>
<ul class="risks">
{% for row in risks %}
<li><b>{{ row.risk }}</b><span><i>Measure</i> {{ row.measure }}</span>
<span><i>What remains</i> {{ row.residual }}</span><code>{{ row.evidence }}</code></li>
{% endfor %}
</ul>
</section>

"""
