"""A table as HTML."""

import html
from itertools import groupby

from bslbench.report.dialects import HTML
from bslbench.report.table import Column, Entry, Table, figure
from bslbench.report.text import cell, notes, shown_columns, shown_rows


def html_table(table: Table) -> str:
    """Return a ``figure`` element: the table and, as its caption, what stands beneath.

    Cells carry their number as ``data-value``, a text that has a mark as ``data-text`` as well, and
    what it is the mean of in ``details``; heads carry their name and which way is better, for
    sorting and filtering.
    """
    columns = shown_columns(table)
    lines = ['<figure>\n<div class="wide">\n<table class="data">']
    if table.title:
        lines.append(f"<caption>{HTML.escape(table.title)}</caption>")
    lines.append("<thead>")
    if any(column.group for column in columns):
        spans = [
            (group, len(list(members))) for group, members in groupby(c.group for c in columns)
        ]
        cells = "".join(f'<th colspan="{span}">{HTML.escape(group)}</th>' for group, span in spans)
        lines.append(f'<tr class="groups">{cells}</tr>')
    lines.append(f"<tr>{''.join(map(_th, columns))}</tr>\n</thead>\n<tbody>")
    lines += [f"<tr>{''.join(map(_td, row, columns))}</tr>" for row in shown_rows(table)]
    lines.append("</tbody>\n</table>\n</div>\n<figcaption>")
    lines += [f"<p>{note}</p>" for note in notes(table, HTML)]
    return "\n".join([*lines, "</figcaption>\n</figure>"]) + "\n"


def _th(column: Column) -> str:
    better = f' data-better="{column.better}"' if column.better else ""
    side = ' class="right"' if column.align == "right" else ""
    name = HTML.escape(column.name)
    return f'<th scope="col" data-name="{name}"{better}{side}>{name}</th>'


def _td(entry: Entry, column: Column) -> str:
    marks = ["right"] * (column.align == "right") + ["best"] * (entry.place == 1)
    classes = f' class="{" ".join(marks)}"' if marks else ""
    said = "" if entry.value is None else f' data-value="{entry.value!r}"'
    if entry.text and entry.mark:
        said += f' data-text="{html.escape(entry.text)}"'
    content = cell(entry, column, HTML)
    if entry.each:
        each = [f"<li>{html.escape(n)}: {figure(v, column.spec)}</li>" for n, v in entry.each]
        content = f"<details><summary>{content}</summary><ul>{''.join(each)}</ul></details>"
    return f"<td{classes}{said}>{content}</td>"
