"""The front page of the Data Docs: all findings on one page that needs no network.

Great Expectations' own front page loads scripts from the internet to fill its tables, and stays empty offline.
"""

from collections.abc import Mapping, Sequence

from jinja2 import Environment

from reflux.components.stages.validate.findings import Finding, failed

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ verdict }}</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff; max-width: 60rem;
         margin: 3rem auto; padding: 0 1rem; }
  table { border-collapse: collapse; width: 100% }
  th, td { text-align: left; vertical-align: top; padding: .6rem .8rem; border-bottom: 1px solid #d1d9e0 }
  td:first-child { white-space: nowrap; font-weight: 600 }
  .met { color: #1a7f37 } .critical { color: #cf222e } .warning { color: #9a6700 } .unknown { color: #59636e }
  code { font-size: .85em; overflow-wrap: anywhere }
  ul { margin: .4rem 0 0; padding-left: 1.2rem }
</style>
<h1>{{ verdict }}</h1>
<p>Data version <code>{{ fingerprint }}</code>.</p>
<table>
<tr><th>Outcome<th>Expectation<th>Rows
{% for f in findings %}
<tr>
<td class="{{ kind(f) }}">{{ outcome(f) }}
<td><code>{{ f.name }}</code><br>{{ f.expectation }}
{% if f.cost %}<br>{{ f.cost|capitalize }}.{% endif %}
{% if f.note %}<br><span class="unknown">Not checked: {{ f.note }}.</span>{% endif %}
{% if f.rows %}
<ul>
{% for row in f.rows %}<li><code>{{ row }}</code>
{% endfor %}
{% if f.unexpected > f.rows|length %}<li>and {{ "{:,}".format(f.unexpected - f.rows|length) }} more
{% endif %}
</ul>
{% endif %}
<td>{% if f.table in pages %}<a href="{{ pages[f.table] }}">{% endif -%}
{{ "{:,}".format(f.unexpected) }} of {{ "{:,}".format(f.checked) }}
{%- if f.table in pages %}</a>{% endif %}
{% endfor %}
</table>
</html>
"""


def front_page(findings: Sequence[Finding], pages: Mapping[str, str], fingerprint: str) -> str:
    """The findings as one self-contained HTML page.

    ``pages`` has the address of Great Expectations' page of each table, relative to the front page.
    """
    critical, warnings = len(failed(findings, "critical")), len(failed(findings, "warning"))
    noted = f"{warnings} warning{'' if warnings == 1 else 's'}"
    verdict = f"The data passes with {noted}" if warnings else "The data passes"
    if critical:
        verdict = f"The data fails: {critical} critical, {noted}"
    # File names come from outside: they are text here, never HTML.
    template = Environment(autoescape=True).from_string(_PAGE)
    return template.render(
        findings=findings, pages=pages, fingerprint=fingerprint, verdict=verdict, kind=_kind, outcome=_outcome
    )


def _kind(finding: Finding) -> str:
    if finding.success is None:
        return "unknown"
    return "met" if finding.success else finding.severity


def _outcome(finding: Finding) -> str:
    return {"unknown": "not checked", "met": "met"}.get(_kind(finding), finding.severity)
