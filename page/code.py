"""The section *Use it from code*."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from page.components import html

ROOT = Path(__file__).parents[1]

TITLE = """
<h2>Use it from code</h2>
<p>Everything this page computes, from your own program. Files that are sent are deleted within two hours.</p>
"""


def build() -> list[gr.Markdown]:
    """Draw the section -> texts that name its address."""
    html("code-title", TITLE)
    texts = []
    with gr.Tabs(elem_id="code"):
        for chapter in (ROOT / "docs" / "api.md").read_text(encoding="utf-8").split("### ")[1:]:
            title, text = chapter.split("\n", 1)
            with gr.Tab(title):
                texts.append(gr.Markdown(text))
    return texts
