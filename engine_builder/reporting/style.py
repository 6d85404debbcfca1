"""How the pages of reports look: light and dark, on a screen, a phone and paper; what a colour says is said by a word or a shape too."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1f272e;--soft:#55626f;--faint:#8a949e;--line:#d5dadf;--panel:#f4f6f7;--low:#eaf2fb;
--good:#0067a5;--bad:#b84300;--before:#aab4be;--alarm:#fbf0ea}
@media screen and (prefers-color-scheme:dark){:root{--page:#14191e;--ink:#e4e9ee;--soft:#a5b1bc;--faint:#7d8994;--line:#35404a;
--panel:#1d242b;--low:#1b2d40;--good:#62b5ec;--bad:#ff9d5c;--before:#66737f;--alarm:#33231a}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--page);
overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .2rem}
h2{font-size:1.15rem;margin:2.2rem 0 .4rem;padding-bottom:.15rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1rem 0 .2rem}
.lead{font-size:1.1rem;margin:.3rem 0 .5rem}.note{color:var(--soft);margin:.2rem 0 .6rem;font-size:14px}
.about{color:var(--soft);font-size:14px;margin:0 0 1rem}ul{margin:.3rem 0;padding-left:1.3rem}li{margin:.2rem 0}
.warning{border-left:.3rem solid var(--bad);background:var(--alarm);margin:.5rem 0;padding:.4rem .8rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(12rem,1fr));gap:.8rem;margin:1rem 0}
.tile{border:1px solid var(--line);border-radius:.5rem;padding:.6rem .9rem}.tile b{display:block;font-size:1.1rem;line-height:1.3}
.tile span{display:block;color:var(--soft);font-size:13px}
.badge{display:inline-block;border-radius:.3rem;padding:.05rem .5rem;color:var(--page);background:var(--ink);font-size:13px;font-weight:600}
.met{background:var(--good)}.met_on_sample{background:var(--soft)}.not_met{background:var(--bad)}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(30rem,100%),1fr));gap:1rem;align-items:start}
.scroll{overflow-x:auto;margin:.4rem 0}svg{display:block;width:100%;height:auto}svg.wide{min-width:34rem}svg.half{max-width:36rem}
svg text{font-family:system-ui,sans-serif!important}
details{margin:.5rem 0}summary{cursor:pointer;font-weight:600}
table{border-collapse:collapse;font-size:13px;overflow-wrap:normal;min-width:50%}
th,td{text-align:left;vertical-align:top;padding:.2rem .7rem .2rem .5rem;border-bottom:1px solid var(--line)}
td:first-child{overflow-wrap:anywhere;min-width:8rem}th{background:var(--panel)}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}.low{background:var(--low)}
.picked td{font-weight:600;background:var(--low)}
.bar{display:inline-block;height:.6em;background:var(--good);vertical-align:middle}
pre{background:var(--panel);padding:.6rem .8rem;font-size:13px;overflow-x:auto;white-space:pre-wrap}
@media (max-width:40rem){body{margin:1rem auto;padding:0 .8rem}.tiles{grid-template-columns:1fr 1fr;gap:.5rem}.tile{padding:.5rem .6rem}
.tile b{font-size:1rem}table{min-width:100%}}
@media print{@page{margin:14mm}html,body{font-size:11px}body{max-width:none;margin:0;padding:0}
.note,.about,.tile span,.badge{font-size:10px}.tiles{grid-template-columns:repeat(4,1fr)}
td,th{overflow-wrap:anywhere;padding:.2rem .4rem}.n{white-space:normal}
h2{break-after:avoid}.tile,svg,tr,.warning{break-inside:avoid}
.scroll{overflow:visible}svg.wide{min-width:0}table,pre{font-size:9px}.two{grid-template-columns:1fr 1fr}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}details::details-content{content-visibility:visible;display:block;height:auto}}
"""


def opening(title: str) -> str:
    """Return how a page begins.

    Args:
        title: Of the page, as HTML.
    """
    view = "<meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
    return f"<!doctype html><html lang=en>{view}<title>{title}</title><style>{STYLE}</style>"
