"""Texts that want to be more than text: to pages, Markdown, YAML, terminals, spreadsheets, shells and paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "<!-- <script> ' \" ` ${1} {{ 7 * 7 }} {% raw %} &lt; &amp;",
    "a\u2028b\u2029c\u200fd\u202ee\u2066f",
    "שלום hello עולם",
    "family 👨‍👩‍👧 and 🇩🇪 emoji 😀 word",
    "\x1b[31mred\x1b[0m\x00\x07\r\ttab",
    "lone \ud800 surrogate",
    "x" * 10_000,
    "$\\frac{1}{0}$ and $x_",
    "'\"><svg onload=alert(3)> javascript:alert(4)",
    "<svg/onload=alert(5)>",
    "<iframe srcdoc='<script>alert(6)</script>'></iframe>",
    "<a href=javascript:alert(7)>x</a>",
    "<style>*{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=https://example.org'>",
    "<base href=https://example.org/>",
    "<textarea></textarea><title></title>",
    "--><script>alert(8)</script><!--",
    "]]><script>alert(9)</script>",
    "</style><script>alert(10)</script>",
    "</template></table></div></body></html>",
    "<SCRIPT SRC=//example.org/x.js></SCRIPT>",
    "<scr\0ipt>alert(11)</scr\0ipt>",
    "&#60;script&#62;alert(12)&#60;/script&#62;",
    "\\u003cscript\\u003ealert(13)\\u003c/script\\u003e",
    '"onmouseover="alert(14)',
    "' onfocus='alert(15)' autofocus='",
    "`${alert(16)}`",
    "');alert(17);//",
    '\\"; alert(18); //',
    "</SCRIPT\t>",
    "<!--<script>",
    "{{ config.__class__ }} {% for x in y %} {# c #}",
    "__proto__",
    "constructor",
    "toString",
    "NaN",
    "null",
    "# heading",
    "| a | b |\n|---|---|",
    "```\ncode\n```",
    "[link](javascript:alert(19))",
    "![image](https://example.org/x.png)",
    "---\nlicense: mine\n---",
    "*bold* _it_ ~~gone~~ <u>",
    "[red]rich[/red] [link=https://example.org]x[/link]",
    "\x1b]8;;https://example.org\x07click\x1b]8;;\x07",
    "\x1b[2J\x1b[H\x1b[?25l",
    "\x9b31m\x85\x1b(0",
    "\b\b\b\x7f\x1b[1A",
    "\u061c\u2066\u2067\u2068\u2069 isolates",
    "\ufeff\u200b\u200c\u200d\u2060 invisible",
    "Z̸̧͎͍a̵̡l̶g̷o̸ and ﷽",
    "ｆｕｌｌ ｗｉｄｔｈ 𝒻𝓪𝓃𝒸𝔂",
    "%s %n %00 {0} {} \\x00 $(reboot) `id` ; rm -rf /",
    "=1+1 @cmd|'/c calc'!A1",
    "../../../etc/passwd",
    "C:\\Users\\someone\\model",
    "file:///home/someone/model",
    "\U000e0041\U000e0042 tags",
    "a" + "\u0301" * 300,
)


def with_hostile(**rest: Any) -> Callable[[Any], Any]:
    """Each of them as an example of the argument ``text``, beside what hypothesis makes up."""

    def decorated(test: Any) -> Any:
        for text in HOSTILE:
            test = example(text=text, **rest)(test)
        return test

    return decorated
