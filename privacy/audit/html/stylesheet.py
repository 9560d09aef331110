"""The report page's one style sheet: system fonts, light and dark by preference, and a printed page that stays legible.

A string in a module, because the Flower bundle carries ``.py`` and ``.json`` files only.
"""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf6; --card: #ffffff; --ink: #1c2427; --soft: #566065; --line: #d9d8d0; --faint: #efeee8;
  --accent: #0b5563; --wash: #e6f0f1; --warn: #8c2f12; --warn-wash: #fbeee6; --other: #7a4b00; --third: #5b3f8c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14191b; --card: #1b2124; --ink: #e8e6df; --soft: #a7b0b3; --line: #374044; --faint: #232a2d;
    --accent: #7cc7d3; --wash: #1a2e33; --warn: #f2a586; --warn-wash: #33211a; --other: #e3b667; --third: #c0a8ef;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
}
main, header, footer { max-width: 58rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 1.8rem; }
h1 {
  font: 600 2.1rem/1.2 ui-serif, Georgia, "Times New Roman", serif; margin: .35rem 0 .5rem;
  letter-spacing: -.01em;
}
h2 { font: 600 1.35rem/1.3 ui-serif, Georgia, "Times New Roman", serif; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 44rem; }
section { margin: 2.6rem 0; }
.kicker { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .2rem 1.5rem; margin: 0; max-width: none;
  color: var(--soft); font-size: .875rem; }
.kicker b { color: var(--accent); letter-spacing: .02em; }
.lead { font-size: 1.06rem; }
header .lead, header .source { margin: .2rem 0; max-width: none; }
.source, .note, .answers .note { color: var(--soft); font-size: .9rem; }
.alarm {
  border: 2px solid var(--warn); background: var(--warn-wash); border-radius: 6px; padding: 1rem 1.25rem;
  margin: 1.4rem 0;
}
.alarm strong { display: block; color: var(--warn); font: 600 1.35rem/1.3 ui-serif, Georgia, serif; }
.alarm p, .alarm ul { margin-bottom: 0; }
.alarm ul { margin-top: .3rem; padding-left: 1.15rem; }
.answers {
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; margin: 1rem 0 1.4rem;
  padding: .2rem 1.4rem; font-size: .94rem; line-height: 1.45;
}
.answers > div {
  display: grid; grid-template-columns: 9.5rem 1fr; gap: 0 1.2rem; padding: .55rem 0;
  border-top: 1px solid var(--faint);
}
.answers > div:first-child { border-top: 0; }
.answers dt { font-weight: 600; color: var(--accent); }
.answers dd { margin: 0; max-width: 46rem; }
.answers dd p { margin: .35rem 0 .45rem; max-width: none; }
.answers dd p:first-child { margin-top: 0; }
.answers dd p:last-child { margin-bottom: 0; }
.big { font-size: 1.13rem; line-height: 1.4; max-width: none; }
.big b { color: var(--accent); white-space: nowrap; }
.guarantee { color: var(--ink); font-variant-numeric: tabular-nums; }
.terms {
  display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .8rem 0 0;
  font-size: .9rem; color: var(--soft);
}
.terms dt { font-weight: 600; color: inherit; }
.terms dd { margin: 0; }
.unseen { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
.first { margin: 0; }
.answers > .open { background: var(--warn-wash); margin: 0 -1.4rem; padding-left: 1.4rem; padding-right: 1.4rem; }
.answers > .open dt { color: var(--warn); }
.answers ul { margin: 0; padding-left: 1.15rem; }
.answers li { margin: .05rem 0; }
.answers .chart { margin: .3rem 0; }
.soft { color: var(--soft); }
.panel {
  margin: 1.2rem 0; border: 1px solid var(--line); border-radius: 6px; background: var(--card);
  padding: 1.1rem 1.4rem;
}
.states { list-style: none; display: grid; grid-template-columns: 1fr 1fr; gap: .3rem 2rem; }
.panel ul.states { padding: 0; }
.states li { display: grid; grid-template-columns: 2.7rem 1fr; gap: .6rem; }
.tag { align-self: start; margin-top: .22rem; border: 1.5px solid currentColor; border-radius: 3px; text-align: center;
  font-size: .72rem; font-weight: 700; line-height: 1.45; }
.tag.on { background: var(--accent); border-color: var(--accent); color: var(--card); }
.judged { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem .7rem; }
h3 .tag { padding: 0 .45rem; margin: 0; letter-spacing: .01em; }
h3 .tag.not, .alert b { color: var(--warn); }
.alert, .failures { border-left: 3px solid var(--warn); padding-left: .8rem; }
.failures { list-style: none; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.4rem, 1fr)); gap: 1.1rem 1.3rem;
  margin: 1rem 0; }
.panels.table { grid-template-columns: 1fr; gap: .5rem; }
.panels.table .pixels { height: 1.6rem; }
.panels.image { grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); }
.panels.image .pixels { aspect-ratio: 1; }
figure { margin: 0; }
figure .chart { margin: 0; }
figcaption { font-size: .88rem; line-height: 1.4; color: var(--soft); margin-top: .2rem; }
figcaption b { color: var(--ink); }
.panels.table figure { display: grid; grid-template-columns: 20rem 1fr; gap: .8rem; align-items: center; }
.panels.table figcaption { order: -1; margin: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 2.2rem; }
.meanings { list-style: none; padding: 0; columns: 20rem; column-gap: 2rem; font-size: .9rem; color: var(--soft); }
.meanings li { display: grid; grid-template-columns: 1.8rem 1fr; break-inside: avoid; }
.meanings b { color: var(--ink); }
.questions { list-style: none; padding: 0; margin: .3rem 0 0; }
.questions li { display: grid; grid-template-columns: 2.7rem 1fr 17rem; gap: .6rem; padding: .3rem 0;
  border-top: 1px solid var(--faint); }
.questions code { color: var(--soft); }
.risks { list-style: none; padding: 0; font-size: .95rem; }
.risks li { display: grid; grid-template-columns: 1fr 1fr 1fr; gap: .3rem 1.6rem; padding: .6rem 0;
  border-top: 1px solid var(--line); }
.risks i { display: block; color: var(--soft); font-style: normal; font-size: .84rem; }
.risks code { color: var(--soft); grid-column: 1 / -1; }
.tag.absent { color: var(--soft); }
.panel ul { margin: .3rem 0 0; padding-left: 1.15rem; }
.panel li { margin: .4rem 0; }
.wide { overflow-x: auto; margin: .8rem 0; }
.wide:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption {
  position: sticky; left: 0; max-width: calc(100vw - 2rem);
  text-align: left; color: var(--soft); font-size: .9rem; padding-bottom: .35rem;
}
th, td {
  text-align: left; vertical-align: top; padding: .42rem .9rem .42rem 0;
  border-bottom: 1px solid var(--line);
}
thead th { border-bottom: 1.5px solid var(--ink); font-size: .84rem; vertical-align: bottom; }
tbody th { font-weight: 600; }
tr.sum th, tr.sum td { border-top: 1.5px solid var(--ink); font-weight: 600; }
.num { text-align: right; }
td.num { white-space: nowrap; }
th.num:last-child, td.num:last-child { padding-right: 0; }
.state { font-weight: 600; white-space: nowrap; }
.on { color: var(--accent); }
.not { color: var(--warn); }
.kind {
  display: inline-block; border: 1px solid currentColor; border-radius: 3px; padding: 0 .4rem;
  font-size: .82rem; font-weight: 600; color: var(--accent);
}
.claims dt { margin-top: .9rem; font-weight: 600; }
.claims dd { margin: .1rem 0 0; }
.claims dd p { margin: .15rem 0; }
code, pre { font: .88rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
pre {
  background: var(--wash); border-radius: 6px; padding: .8rem 1.1rem; white-space: pre-wrap;
  overflow-wrap: anywhere;
}
.legend {
  display: flex; flex-wrap: wrap; gap: .25rem 1.4rem; list-style: none; padding: 0; margin: .8rem 0;
  font-size: .9rem;
}
.legend li { display: flex; align-items: center; gap: .4rem; }
.chart { display: block; margin: .8rem 0; overflow: visible; }
.chart text { font-size: 13px; fill: var(--soft); }
.chart .name { font-weight: 600; fill: var(--ink); }
.chart .name .more { font-weight: 400; fill: var(--soft); }
.chart .value { fill: var(--ink); font-variant-numeric: tabular-nums; }
.chart .mid { text-anchor: middle; }
.chart .end { text-anchor: end; }
.grid { stroke: var(--line); stroke-width: 1; }
.rule { stroke: var(--line); stroke-width: 1; }
.lane { stroke: var(--line); stroke-width: 1; stroke-dasharray: 1 5; }
.mark { fill: none; stroke: var(--soft); stroke-width: 2; }
.mark.home, .mark.elsewhere { stroke: var(--other); }
.mark.together { fill: var(--accent); stroke: var(--accent); }
.mark.together_without_privacy { stroke: var(--accent); }
.mark.pooled { stroke: var(--third); }
.range { stroke: var(--accent); stroke-width: 1.5; }
.track { fill: var(--faint); stroke: var(--line); }
.spent, .after { fill: var(--accent); }
.before { fill: var(--soft); opacity: .45; }
.planned { fill: none; stroke: var(--accent); stroke-width: 1.5; stroke-dasharray: 3 3; }
.limit { stroke: var(--ink); stroke-width: 2; }
.cell { fill: var(--wash); stroke: var(--accent); stroke-width: 1; }
.cell.failed { fill: var(--warn-wash); stroke: var(--warn); stroke-width: 2; }
.cell.absent { fill: none; stroke: var(--line); }
.sign { fill: none; stroke: var(--accent); stroke-width: 2; }
.sign.failed { stroke: var(--warn); stroke-width: 2.5; }
.sign.absent { stroke: var(--soft); }
.beyond { fill: var(--warn-wash); }
.bound { fill: var(--card); stroke: var(--accent); stroke-width: 2; }
.bound.fdp { fill: var(--accent); }
.bound.pair, .bound.pair_999 { stroke: var(--other); }
.bound.pair_999 { fill: var(--other); }
.bound.outside { fill: var(--warn); stroke: var(--warn); }
.frame { fill: var(--card); stroke: var(--line); }
.edge, .guessing, .found { fill: none; vector-effect: non-scaling-stroke; }
.edge { stroke: var(--warn); stroke-width: 1.5; }
.guessing { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; }
.found { stroke: var(--accent); stroke-width: 2; }
.claimed { fill: none; stroke: var(--ink); stroke-width: 2; }
.chart .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
.pixels { width: 100%; border: 1px solid var(--line); }
.region { fill: var(--accent); stroke: var(--accent); }
.rest { fill: var(--card); }
.hatch { stroke: var(--accent); stroke-width: 3; }
.curve { stroke: var(--accent); stroke-width: 2; stroke-linecap: round; }
.dot { fill: var(--accent); }
.chart .skip { fill: var(--warn); font-weight: 700; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--accent); font-size: .92rem; }
.figures { columns: 11rem; list-style: none; padding: 0; font-size: .9rem; font-variant-numeric: tabular-nums; }
footer {
  border-top: 1px solid var(--line); margin-top: 3rem; padding-top: 1rem; padding-bottom: 3rem;
  color: var(--soft); font-size: .85rem;
}
@media (max-width: 40rem) {
  main, header, footer { padding-left: 1rem; padding-right: 1rem; }
  header { padding-top: 1.4rem; }
  h1 { font-size: 1.6rem; }
  .states, .answers > div, .pair, .panels.table figure { grid-template-columns: 1fr; }
  .panels.table figure { gap: .15rem; }
  .risks li { grid-template-columns: 1fr; }
  .questions li { grid-template-columns: 2.7rem 1fr; }
  .questions code { grid-column: 2; }
  .panels { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 1rem; }
  .answers { padding: .2rem 1rem; }
  .answers > .open { margin: 0 -1rem; padding-left: 1rem; padding-right: 1rem; }
  .answers dt { margin-bottom: .25rem; }
  .terms { grid-template-columns: 1fr; }
  .terms dd { margin-bottom: .35rem; }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #fff; --card: #fff; --ink: #111; --soft: #444; --line: #bbb; --faint: #eee;
    --accent: #0b5563; --wash: #f2f2f2; --warn: #8c2f12; --warn-wash: #fbeee6; --other: #7a4b00; --third: #5b3f8c;
  }
  @page { margin: 14mm 15mm; }
  html { font-size: 12.5px; }
  body { line-height: 1.42; }
  p, .answers dd { max-width: none; }
  main, header, footer { max-width: none; padding: 0; }
  header { padding-top: 0; }
  section { margin: 1.5rem 0; }
  h2, h3, caption, .answers > div:first-child { break-after: avoid; }
  .answers > div, .panel, .alarm, .pair > div, .wide, tr, li, svg, figure, .legend, .terms { break-inside: avoid; }
  .legend { break-after: avoid; }
  .chart text { font-size: 11px; }
  .answers > div { padding: .55rem 0; }
  .wide { overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .region { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .cell, .beyond, .bound, .pixels, .answers > .open, .tag, figure { print-color-adjust: exact;
    -webkit-print-color-adjust: exact; }
  .spent, .after, .before, .track, .mark, .dot, pre { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
