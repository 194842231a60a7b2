"""Chat templates render as in `transformers`, and have an end."""

import json
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from framework.models.loading import template_limits
from framework.models.loading.byte_tokenizer import byte_tokenizer
from framework.models.loading.chat_template import ChatTemplate
from framework.models.loading.tokenizer import Tokenizer
from tests.loading.tokenizer_writer import write_tokenizer

BYTES = byte_tokenizer()
USER = {"role": "user", "content": "a <b> é"}


def both(template, messages, **variables):
    ours = Tokenizer(BYTES.backend, chat_template=template, special_tokens={"bos_token": "<|im_start|>"})
    reference = PreTrainedTokenizerFast(
        tokenizer_object=BYTES.backend, bos_token="<|im_start|>", chat_template=template
    )
    expected = reference.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **variables)
    return ours.render_chat(messages, **variables), expected


CONTENT = """{%- for m in messages %}{{ m.role }}:
{%- if m.content is string %}{{ m.content }}{% elif m.content is defined %}
{%- for part in m.content %}{{ part.text }}|{% endfor %}{% else %}nothing{% endif %}
{%- if m.tool_calls is defined %}{{ m.tool_calls | tojson }}{% endif %}{{ m.reasoning_content }};{% endfor %}"""


@pytest.mark.parametrize(
    ("template", "messages", "variables"),
    [
        ("{% for m in messages %}[{% generation %}{{ m.content }}{% endgeneration %}]{% endfor %}", [USER], {}),
        ("{%- for m in messages -%} {%- generation -%} x {{ m.role }} {%- endgeneration -%} {% endfor %}", [USER], {}),
        ("{{ messages | tojson(ensure_ascii=true) }}", [USER], {}),
        ("{{ messages | tojson(indent=2, sort_keys=true) }}", [USER], {}),
        ("{{ messages[0] | tojson(separators=(',', ':'), ensure_ascii=False) }}", [USER], {}),
        (CONTENT, [{"role": "user", "content": None}, USER], {}),
        (CONTENT, [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"text": "there"}]}], {}),
        (CONTENT, [{"role": "assistant", "content": None, "tool_calls": [{"name": "f", "args": {"x": 1}}]}], {}),
        (CONTENT, [{"role": "assistant", "content": "x", "reasoning": "why"}], {}),
        ("{{ tools | tojson }}{{ x }}{{ documents }}", [USER], {"tools": [{"name": "f"}], "x": 3}),
        ("{% set ns = namespace(a='', n=0) %}{% for m in messages %}{% set ns.a = ns.a + m.role %}"
         "{% set ns.n = ns.n + loop.length %}{% endfor %}{{ ns.a ~ ns.n ~ [1, 'a', none] }}", [USER, USER], {}),
        ("{% macro f(x, n=2) %}{{ x * n }}{% endmacro %}{{ f('ab') }}{{ f('c', n=3) | upper }}{{ dict(a=1) }}",
         [USER], {}),
        ("{% for m in messages[::-1] if m.role == 'user' %}{{ loop.last }}{{ loop.nextitem }}{% else %}-{% endfor %}",
         [USER, {"role": "assistant", "content": "x"}, USER], {}),
        ("{{ 'a-b-c'.split('-') | join(', ') }}{{ '%s and %d' % ('a', 3) }}{{ '{} {x}'.format(1, x=2) }}{{ 2 ** 10 }}",
         [USER], {}),
        ("{{ messages | map(attribute='role') | list }}"
         "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
         "{{ 'a b'.replace(' ', '_') | replace('a', 'bb') | trim | indent(4, true) }}", [USER, USER], {}),
        ("{% set t %}x{{ messages[0].role }}{% endset %}{{ t }}"
         "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", [USER], {}),
    ],
)  # fmt: skip
def test_renders_as_in_transformers(template, messages, variables):
    ours, expected = both(template, messages, **variables)
    assert ours == expected


@pytest.mark.parametrize("with_tools", [True, False])
@pytest.mark.parametrize("form", ["list", "files"])
def test_the_template_for_tools_is_chosen_when_tools_are_given(tmp_path, with_tools, form):
    named = {"default": "plain", "tool_use": "tools: {{ tools | tojson }}", "rag": "rag"}
    listed = [{"name": name, "template": template} for name, template in named.items()]
    write_tokenizer(BYTES, tmp_path, chat_template=listed if form == "list" else "old")
    if form == "files":
        (tmp_path / "chat_template.jinja").write_text(named["default"])
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text(named["tool_use"])
    reference = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    options = {"tools": [{"name": "f"}]} if with_tools else {}
    ours = Tokenizer.from_folder(tmp_path).render_chat([USER], **options)
    assert ours == reference.apply_chat_template([USER], tokenize=False, **options)
    assert ours.startswith("tools" if with_tools else "plain")


def test_named_templates_without_a_default(tmp_path):
    write_tokenizer(BYTES, tmp_path, chat_template=[{"name": "rag", "template": "x"}])
    with pytest.raises(ValueError, match=rf"{tmp_path}: of the chat templates rag none is called 'default'"):
        Tokenizer.from_folder(tmp_path).render_chat([USER])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 1 / 0 }}", "fails on these messages: ZeroDivisionError: division by zero"),
        ("{{ 'a' + 1 }}", "fails on these messages: TypeError"),
        ("{{ messages[0].content.x.y }}", "refuses these messages: .*has no attribute 'x'"),
        ("{{ messages.append(1) }}", "refuses these messages: "),
        ("{{ ''.__class__.__mro__ }}", "refuses these messages: .*unsafe"),
        ("{{ messages | tojson(indent=1000) }}", "fails on these messages: ValueError: tojson"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails on these messages: RecursionError"),
        ("{{ x | nothing }}", "is not valid Jinja: TemplateAssertionError: No filter named 'nothing'"),
        ("{% for i in [1] %}" * 30 + "{% endfor %}" * 30, "is not valid Jinja: SyntaxError"),
        ("{{ " + "(" * 900 + "1" + ")" * 900 + " }}", "is not valid Jinja: RecursionError"),
    ],
)
def test_a_template_that_fails_is_an_error_with_the_name_of_its_folder(template, message):
    tokenizer = Tokenizer(BYTES.backend, chat_template=template, source="models/mine")
    with pytest.raises(ValueError, match=f"^models/mine: the chat template {message}"):
        tokenizer.render_chat([USER])


@pytest.mark.parametrize("message", ["hello", 5, ["role", "user"]])
def test_a_message_that_is_no_object(message):
    with pytest.raises(ValueError, match="a message must be an object"):
        BYTES.render_chat([message])


DOUBLED = (
    "{% set ns = namespace(x='ab', y=['ab']) %}{% for i in range(99) %}{% set ns.x = DOUBLE %}{% endfor %}{{ ns.x }}"
)
ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% set k = i %}{% endfor %}{% endfor %}",
    *[DOUBLED.replace("DOUBLE", double) for double in (
        "ns.x + ns.x", "ns.x ~ ns.x", "[ns.x, ns.x] | join", "ns.x * 2", "(ns.x, ns.x)", "{'a': ns.x, 'b': ns.x}",
        "[ns.x, ns.x] | tojson", "'%s%s' % (ns.x, ns.x)", "'{0}{0}'.format(ns.x)", "ns.x.replace('a', 'aab')",
        "dict(a=ns.x, b=ns.x)", "ns.x | replace('a', 'aa')", "ns.x.join(['a', 'b', 'c'])", "(ns.x, ns.x) | list",
        "[ns.x] * 2",
    )],
    "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'a' * 100000 }}{% endfor %}",
    "{{ 'a' * 10**10 }}", "{{ 10 ** (10 ** 10) }}", "{{ [0] * 10**10 }}",
    "{{ 'a' | center(10**10) }}", "{{ 'a'.ljust(10**10) }}", "{{ '%9999999999d' % 1 }}", "{{ '%*d' % (10**10, 1) }}",
    "{{ '{:>9999999999}'.format(1) }}", "{{ '{:>{w}}'.format(1, w=10**10) }}", "{{ '%9999999999d' | format(1) }}",
    "{{ ('a' * 10**5).replace('a', 'b' * 10**5) }}", "{{ ('a' * 10**5) | replace('a', 'b' * 10**5) }}",
    "{{ (('a\\n' * 10**5) | indent(10**5)) | length }}", "{{ (range(99999) | join('b' * 10**5)) | length }}",
    "{{ (range(99999) | map('string') | join('b' * 10**5)) | length }}",
    "{{ ('\\t' * 10**5).expandtabs(10**6) | length }}", "{{ ('a' * 10**5).translate({97: 'b' * 10**5}) | length }}",
]  # fmt: skip


@pytest.mark.parametrize("template", ENDLESS)
def test_a_template_without_end_is_stopped(template, monkeypatch):
    """Limits are lower than usual, so that the test is quick."""
    for name, limit in (("MAX_STEPS", 50_000), ("MAX_LENGTH", 1 << 20), ("MAX_TOTAL", 8 << 20)):
        monkeypatch.setattr(template_limits, name, limit)
    start_s = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"F: the chat template has no end in sight: it "):
            ChatTemplate(template, {}, source="F").render([USER], add_generation_prompt=True)
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - start_s < 10


def test_long_conversations_are_far_from_the_limits():
    template = BYTES.chat_templates["default"]
    messages = [{"role": "user", "content": "word " * 200}] * 2000
    assert len(ChatTemplate(template, {}).render(messages, add_generation_prompt=True)) > 2_000_000


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant"]), "content": st.none() | st.text(max_size=8)},
            optional={"name": st.none() | st.integers(), "parts": st.lists(st.text(max_size=3), max_size=3)},
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_messages_render_as_in_transformers(messages):
    template = "{% for m in messages %}{{ m | tojson }}{{ m.content ~ loop.index }}{{ m.parts or [] }}{% endfor %}"
    ours, expected = both(template, json.loads(json.dumps(messages)))
    assert ours == expected
