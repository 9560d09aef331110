"""The report page as a jinja2 template: one self-contained document, no scripts that run, nothing fetched.

Strings in modules, because the Flower bundle carries ``.py`` and ``.json`` files only. Autoescape is on; the only
values that are markup already are the charts, the style sheet and the strictly decoded envelope.
"""

from privacy.audit.html.template_measured import ASSESSMENT, ATTACKS, SPENT, TESTED
from privacy.audit.html.template_record import AGREED, CLAIMS, PROTECTIONS, ROUNDS, UTILITY

_OPENING = """\
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
"""

# The first screen, and the first sheet of paper: five plain answers.
_ANSWERS = """\
{% if alarms %}
<div class="alarm" role="note"><strong>A measurement contradicts what is promised here.</strong>
<ul>
{% for line in alarms %}
<li>{{ line }}</li>
{% endfor %}
</ul></div>
{% endif %}
{% if not privacy %}
<div class="alarm" role="note"><strong>No differential privacy was applied.</strong>
<p>Nothing in this report limits what can be learnt about a single person's record from the model or from the updates
that the sites sent. Treat both as personal data unless you can show otherwise.</p></div>
{% endif %}
{% if crossings and crossings.unprotected %}
<div class="alarm" role="note"><strong>Values of single records left their organisation unprotected.</strong>
<ul>
{% for line in crossings.unprotected %}
<li>{{ line }}</li>
{% endfor %}
</ul></div>
{% endif %}
<section class="first" aria-labelledby="short"><h2 id="short" class="unseen">In short</h2>
{% if privacy|length > 1 %}
<p class="lead">{{ privacy|length }} promises hold side by side. Each has its own ledger, and their numbers are never
added.</p>
{% endif %}
<dl class="answers">
{% if privacy %}
<div><dt>Who is protected</dt><dd>
{% for block in privacy %}
<p>{% if privacy|length > 1 %}<b>{{ block.title }}.</b> {% endif %}{{ block.who }} The unit is one
<b>{{ block.unit }}</b>; {{ block.shared }}</p>
{% endfor %}
</dd></div>
<div><dt>From whom</dt><dd>
{% for block in privacy %}
<p>{% if privacy|length > 1 %}<b>{{ block.title }}.</b> {% endif %}{{ block.whom }}</p>
{% endfor %}
</dd></div>
<div><dt>How strongly</dt><dd>
{% for block in privacy %}
{% if privacy|length > 1 %}
<p><b>{{ block.title }}.</b> A 50 % suspicion that {{ block.suspected[0] }} rises to at most about
<b>{{ block.after }}</b>.</p>
{% else %}
<p class="big">A 50 % suspicion that {{ block.suspected[0] }} rises to at most about <b>{{ block.after }}</b>, whatever
else is known about that {{ block.suspected[1] }}.</p>
{{ block.chart }}
{% endif %}
<p class="note"><b class="guarantee">&epsilon; &le; {{ block.epsilon }} at &delta; = {{ block.delta }}</b> for each
{{ block.unit }}{% if block.worst %} ({{ block.worst }}, the site with the largest &epsilon;; sites are never
averaged){% endif %}, against {{ block.against }}.</p>
{% endfor %}
<p>{{ measured }}</p></dd></div>
{% else %}
<div><dt>Who is protected</dt><dd><p>Nobody, in the sense of a mathematical bound.</p></dd></div>
<div><dt>What is shown</dt><dd><p>Which model came out, what each site sent, and how well the model works.
{{ measured }}</p></dd></div>
{% endif %}
<div class="open"><dt>What is not protected</dt><dd><ul>
{% for line in not_protected.lines %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% if not_protected.own %}
<p class="note">And, in the words of whoever signed, which nobody checks:</p>
<ul>
{% for line in not_protected.own %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% endif %}
</dd></div>
<div><dt>How to check</dt><dd><p><code>collegium verify {{ file }} --trust keys.txt</code> goes through all of it
offline, claim by claim. {{ signed.sentence }} <span class="soft">Where the keys come from stands at the end.</span></p>
</dd></div>
</dl></section>

"""

_CLOSING = """\
<section aria-labelledby="verify"><h2 id="verify">Check this report yourself</h2>
<p>The page carries the signed report inside it. With version {{ tool.version }} of Collegium installed, and no
network:</p>
<pre>collegium verify {{ file }} --trust keys.txt</pre>
<p><code>keys.txt</code> holds the public keys that you trust, one a line. Get the keys from the people whose they are,
by another way than this file; without <code>--trust</code> the check says AUTHENTICITY NOT CHECKED, since a forger
can sign with a key of their own; with <code>--threshold N</code>, at least N of them must have signed.
Files beside the page are checked with it: <code>{{ model.file }}</code> by its digest{%
if secagg %}, <code>{{ secagg.file }}</code> by every signature of the sites{% endif %}{% if ledgers %},
<code>{{ ledgers.file }}</code> by every entry{% endif %}{% if one_run or black_box %},
<code>{{ canaries }}</code> by every score{% endif %}{% if sites %},
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

_SECTIONS = (PROTECTIONS, TESTED, ATTACKS, SPENT, UTILITY, ROUNDS, AGREED, ASSESSMENT, CLAIMS)

PAGE = "".join((_OPENING, _ANSWERS, *_SECTIONS, _CLOSING))
