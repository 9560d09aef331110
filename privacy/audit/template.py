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
<dl class="answers">
{% if privacy %}
<div><dt>Who is protected</dt><dd><p>Each single record that was used for training:
{{ privacy.n_records }} at {{ privacy.n_sites }}. The unit is one <b>{{ privacy.unit }}</b>; somebody with several
records is protected less.</p></dd></div>
<div><dt>From whom</dt><dd><p>Everyone outside the site that holds the record: the coordinator, the other sites, and
whoever receives the model or sees what the site sent.</p></dd></div>
<div><dt>How strongly</dt><dd>
<p class="big">A 50 % suspicion that a given person's record was in the training set rises to at most about
<b>{{ privacy.after }}</b>, whatever else is known about that person.</p>
{{ privacy.chart }}
<dl class="terms">
<dt>Guarantee</dt><dd><b class="guarantee">&epsilon; &le; {{ privacy.epsilon }} at &delta; = {{ privacy.delta }}</b>
for each {{ privacy.unit }} ({{ privacy.worst }}, the site with the largest &epsilon;; sites are never averaged).
Outcomes for which the bound may fail have a total probability of at most {{ privacy.delta }}</dd>
<dt>Compared with</dt><dd>{{ privacy.relation_words }} (<code>{{ privacy.relation }}</code>). If a record may be
swapped for any other instead: &epsilon; &le; {{ privacy.replace_one }}</dd>
<dt>Sampling</dt><dd>{{ privacy.sampling }}</dd>
<dt>Accountant</dt><dd>{{ privacy.accountant }}; by RDP, a looser method: &epsilon; &le; {{ privacy.rdp }}</dd>
</dl></dd></div>
<div><dt>How sure is this</dt><dd><p>The numbers follow from the listed steps, and anyone can recompute them offline.
That the steps ran as listed is <b>asserted</b> by the software, not proved.</p></dd></div>
{% else %}
<div><dt>Who is protected</dt><dd><p>Nobody, in the sense of a mathematical bound.</p></dd></div>
<div><dt>What is shown</dt><dd><p>Which model came out, what each site sent, and how well the model works.</p>
</dd></div>
{% endif %}
</dl>

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

{% if privacy %}
<section aria-labelledby="spent"><h2 id="spent">What privacy each site spent</h2>
<p>The solid bar is what was spent; the dashed outline is what the plan would have spent had every retry been used; the
upright line is the limit, &epsilon; = {{ privacy.target }}.</p>
{{ privacy.budget_chart }}
{{ draw(privacy.table, "spent") }}
</section>
{% endif %}

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

<section aria-labelledby="egress"><h2 id="egress">What left each site</h2>
{{ draw(egress, "egress") }}
</section>

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
can sign with a key of their own. With <code>{{ model.file }}</code> beside the page, its digest is checked too. Exit
code 0: all holds. 1: a claim fails. 2: not a usable report. 3: something was not checked.</p>
<dl class="terms">
<dt>Public key</dt><dd><code>{{ public_key }}</code></dd>
<dt>Key id</dt><dd><code>{{ keyid }}</code></dd>
<dt>Model</dt><dd><code>{{ model.file }}</code>, {{ model.size }}, SHA-256 <code>{{ model.sha256 }}</code></dd>
<dt>Run</dt><dd>scenario {{ run.scenario }}, strategy {{ run.strategy }}, {{ engine }}, seed {{ run.seed }},
{{ started }} to {{ finished }}</dd>
</dl></section>
</main>
<footer><p>Drawn by Collegium {{ tool.version }} from the signed report that is part of this file; the same report
always draws the same page. It is evidence for an assessment, not a statement that data are anonymous.</p></footer>
{{ envelope }}
</body>
</html>
"""
