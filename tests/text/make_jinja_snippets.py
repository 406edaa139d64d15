#!/usr/bin/env python3
"""Writes ../data/jinja_snippets.json: small templates, their input, and what jinja2 makes of them in
the environment that transformers uses for chat templates. Needs PyPI's jinja2 (3.1)."""
import datetime
import json
import pathlib

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Global names of every snippet.
INPUT = {
    "n": 3, "f": 2.5, "t": True, "none_": None, "s": "Hello World", "u": "Zürich ÄÖ straße 🦙",
    "e": "", "l": [3, 1, 2], "w": ["b", "A", "c", "a"], "d": {"b": 1, "a": 2, "C": 3},
    "nested": {"x": {"y": [1, {"z": "deep"}]}, "items": [1, 2], "keys": "k"},
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi\n  there "},
        {"role": "assistant", "content": None, "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": 1, "b": "x \"q\" <b>"}}}]},
        {"role": "tool", "content": "42"},
    ],
    "people": [{"name": "Zed", "age": 30, "city": "B"}, {"name": "amy", "age": 25, "city": "a"},
               {"name": "Bob", "age": 30, "city": "b"}],
}

# By subject. Each line is a template.
SNIPPETS = {
    "printing": r"""
{{ n }} {{ f }} {{ t }} {{ none_ }} {{ s }} {{ missing }} {{ l }} {{ d }} {{ (1,) }} {{ () }}
{{ 1.0 }} {{ 1e16 }} {{ 1e15 }} {{ 1e-5 }} {{ 0.0001 }} {{ 123456789.123 }} {{ -0.0 }} {{ 1e100 }}
{{ 0.1 + 0.2 }} {{ 1/3 }} {{ 2/1 }} {{ 1e22 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }}
{{ ["it's", 'say "x"', 'both \' and "', "tab\t", "nl\n", "\x07", "é", "\u200b", "🦙", "\\"] }}
{{ {'a': none, 1: true, 2.5: [1, (2, 3)]} }} {{ [missing] }} {{ [[], {}, ()] }}
{{ d.items() }} {{ d.keys() }} {{ d.values() }} {{ range(3) }} {{ range(1, 9, 2) }}
{{ true and 'x' }} {{ false or none }} {{ not 1 }} {{ True }} {{ None }} {{ False }}
{{ 'a' 'b' "c" }} {{ 'x\ty\x41\u00e9\101\q' }} {{ "multi\
line" }}
{{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1_000 }} {{ 1_0.5_0 }} {{ 00 }}
{{ u|string }} {{ [u] }} {{ 1, 2 }} {{ (1, 2) }} {% print 1, 'a' %}
{{ namespace(a=1) }} {{ nested.x }}
""",
    "arithmetic": r"""
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** 10 }}
{{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 10 / 4 }} {{ 10 / 5 }} {{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }}
{{ 'ab' * 3 }} {{ 3 * [1, 2] }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ 'a' + 'b' }} {{ 'x' * -1 }}|
{{ 1 ~ 2 }} {{ 'a' ~ none ~ 1.5 ~ true ~ missing ~ [1] }} {{ 1 ~ 2 + '3' }} {{ '1' + 2 ~ 3 }} {{ 2 * 3 ~ 4 * 5 }}
{{ 1 ~ 2 + 3 }}
{{ true + 1 }} {{ 1.5 + true }} {{ +5 }} {{ -n }} {{ - -n }} {{ +true }}
{{ 1/0 }}
{{ 1//0 }}
{{ 1.0 % 0 }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ [1] + (2,) }}
{{ none + 1 }}
{{ missing + 1 }}
{{ 1 - missing }}
{{ -s }}
{{ 'a' - 'b' }}
{{ 5.0 // 0.3 }} {{ 1e308 * 10 }} {{ 5 % 2.5 }} {{ -5 // 2.0 }} {{ 0.0 // 1 }} {{ -1 // 0.3 }}
{{ 7 // -2 }} {{ 6 % -3 }} {{ 0 ** 0 }} {{ 4 ** 0.5 }} {{ 10 ** 18 }}
""",
    "comparison": r"""
{{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' == 'a' }} {{ [1, 2] == [1, 2] }} {{ (1,) == [1] }} {{ {'a': 1} == {'a': 1.0} }} {{ none == false }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 != 2 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ (1,) < (1, 0) }} {{ 3 >= 3 }} {{ 1 < 1.5 }}
{{ missing == missing }} {{ missing == none }} {{ missing == '' }} {{ missing != 1 }} {{ none == none }}
{{ 'a' in 'abc' }} {{ '' in 'a' }} {{ 1 in [1, 2] }} {{ 1 not in [1] }} {{ 'a' in d }} {{ 'z' in d }} {{ 2 in d.values() }} {{ ('a', 2) in d.items() }} {{ 5 in range(9) }} {{ 1 in missing }} {{ 1.0 in [1] }}
{{ 'a' in d.keys() }} {{ 'x' not in d and 'y' not in d }} {{ not 'a' in d }} {{ not (1 == 2) }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ missing < 1 }}
{{ 1 in 'abc' }}
{{ missing in 'abc' }}
{{ 'a' in 5 }}
{{ 'a' in none }}
{{ [1] in d }}
{{ 1 == 1 == 1 }} {{ 1 in [1] in [true] }} {{ 'é' > 'z' }} {{ '🦙' > '\uffff' }} {{ 'Z' < 'a' }}
{{ range(3) == range(0, 3, 1) }} {{ range(0) == range(2, 2) }} {{ {} == {} }} {{ [] == () }}
{{ 9007199254740993 == 9007199254740992.0 }} {{ 9223372036854775807 > 9.3e18 }}
""",
    "access": r"""
{{ nested.x.y[1].z }} {{ nested['x']['y'][0] }} {{ nested.x.y.0 }} {{ nested.x.y[-1]['z'] }} {{ nested.items is callable }} {{ nested['items'] }} {{ nested.keys is callable }}
{{ nested.nope is defined }} {{ nested.x.nope is defined }} {{ none_.x is defined }} {{ n.x is defined }} {{ s.x is defined }} {{ l.x is defined }} {{ l[9] is defined }} {{ l['x'] is defined }}
{{ nested.nope.nope }}
{{ missing.x }}
{{ missing['x'] }}
{{ missing[0] }}
{{ missing[1:] }}
{{ missing() }}
{{ none_[1:] }}
{{ d[1:] }}
{{ n() }}
{{ s.nope() }}
{{ s[0] }} {{ s[-1] }} {{ s[1:3] }} {{ s[::-1] }} {{ s[::2] }} {{ s[-3:] }} {{ s[:-3] }} {{ s[99:] }}| {{ s[3:1] }}| {{ u[1] }} {{ u[-1] }} {{ u[1:4] }} {{ u[::-1] }}
{{ l[0] }} {{ l[-1] }} {{ l[1:] }} {{ l[::-1] }} {{ l[:-1] }} {{ l[5:] }} {{ (1, 2, 3)[1:] }} {{ range(10)[2:5] }} {{ range(10)[-1] }} {{ range(10)[::-3] }} {{ l[true] }}
{{ l[::0] }}
{{ l['a':] }}
{{ l[none:none] }} {{ l[:2][0] }} {{ messages[0]['role'] }} {{ messages[1:]|length }} {{ messages[-1].content }} {{ messages[2].tool_calls[0].function.arguments.a }}
{{ d['a'] }} {{ d.a }} {{ d['items'] is callable }} {{ d.get('a') }} {{ d.get('z') }} {{ d.get('z', 5) }} {{ {1: 'one'}[1] }} {{ {1: 'one'}[true] }} {{ {(1, 2): 'x'}[(1, 2)] }} {{ {1: 'one'}[1.0] }}
{{ d.__class__ }}|{{ d.__class__ is defined }}|{{ ''.__len__ is defined }}|{{ d['__class__'] is defined }}
{{ l.append(1) }}
{{ d.update({'x': 1}) }}
{{ l.append is defined }} {{ l.append }}| {{ d.pop is defined }}
{{ d|attr('a') is defined }} {{ d|attr('items') is callable }} {{ 'x'|attr('upper') is callable }}
{{ l.index(1) }} {{ l.count(3) }} {{ (1, 1).count(1) }} {{ l.copy() }} {{ d.copy() }} {{ (3, 4).index(4) }}
{{ l.index(77) }}
{{ d[[1]] is defined }} {{ l[1.5] is defined }} {{ 'abc'['upper']() }} {{ l[none] is defined }}
{{ (none).x is undefined }} {{ 5 .x is undefined }} {{ 'a'.upper() }} {{ [1, 2].0 }}
{{ d.fromkeys(['q', 'r'], 1) }} {{ nested.x.y[0:1] }} {{ s[n] }} {{ s[n:n+2] }} {{ {'a': {'b': 1}}.a.b }}
{{ l[1, 2] is defined }} {{ {'_x': 1}._x }} {{ {'__x__': 1}['__x__'] }}
""",
    "conditional": r"""
{{ 'a' if t else 'b' }} {{ 'a' if e else 'b' }} {{ 'a' if e }}| {{ ('a' if e) is undefined }} {{ 1 if e else 2 if t else 3 }} {{ (1 if t else 2) + 1 }}
{% if e %}1{% elif l %}2{% else %}3{% endif %} {% if missing %}x{% else %}y{% endif %} {% if 0.0 %}x{% elif [0] %}y{% endif %}
{% if not e and (t or missing.x) %}ok{% endif %} {{ e and missing.x is defined }}
{{ t and missing.x is defined }}
{{ none or 'default' }} {{ '' or [] or 0 or 'x' }} {{ 1 and 2 and 3 }} {{ 0 and missing.x }} {{ e or none_ }}
{% if messages[0].role == 'system' and messages[0]['content'] is not none %}sys{% endif %}
{% if t: %}colon{% endif %} {% if l|length > 2 %}many{% endif %} {% if 'a' is in ['a'] %}in{% endif %}
{% if range(0) %}a{% else %}b{% endif %} {% if d.items() %}a{% endif %} {% if {}.items() %}a{% else %}b{% endif %} {% if []|select %}generator{% endif %}
""",
    "loops": r"""
{% for x in l %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% endfor %}
{% for x in l %}{{ loop.index0 }} {{ loop.revindex }} {{ loop.revindex0 }} {{ loop.first }} {{ loop.last }} {{ loop.previtem }} {{ loop.nextitem }} {{ loop.depth }};{% endfor %}
{% for x in [] %}a{% else %}empty{% endfor %} {% for x in missing %}a{% else %}empty{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }} {% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for k, v in d|items %}{{ k }}{{ v }}{% endfor %} {% for k, v in d|dictsort %}{{ k }}{{ v }}{% endfor %}
{% for a, (b, c) in [(1, (2, 3)), [4, [5, 6]]] %}{{ a }}{{ b }}{{ c }} {% endfor %} {% for a, b in ['xy', 'zw'] %}{{ a }}-{{ b }} {% endfor %}
{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{{ loop.last }} {% endfor %} {% for x in l if x > 9 %}{% else %}none{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in range(3) %}{% for y in range(x) %}{{ loop.index }}{{ x }}{{ y }} {% endfor %}{{ loop.index }};{% endfor %}
{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }} {% endfor %}
{% for x in [1, 1, 2, 2, 1] %}{% if loop.changed(x) %}{{ x }}{% endif %}{% endfor %}
{% for x in [[1, [2, [3]]], 4] recursive %}{% if x is iterable %}({{ loop(x) }}){{ loop.depth }}{% else %}{{ x }}{% endif %}{% endfor %}
{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}
{% set ns = namespace(x=1, found=false) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }} {{ ns.found }} {{ ns.nope is defined }}
{% for c in 'añ🦙' %}[{{ c }}]{% endfor %} {% for x in range(5)|select('odd') %}{{ x }}{{ loop.length }}{{ loop.last }} {% endfor %}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% for x in l %}{{ loop(x) }}{% endfor %}
{{ loop is defined }} {% for x in [1] %}{{ loop is defined }}{% endfor %}
{% for x in [1, 2, 3] %}{% if x == 2 %}{% set y = x %}{% endif %}{{ y }};{% endfor %}
{% for m in messages %}{% if loop.first and m.role == 'system' %}S{% continue %}{% endif %}{{ m.role[0] }}{% if loop.nextitem is defined and loop.nextitem.role == 'tool' %}+{% endif %}{% endfor %}
{% for x in l|reverse %}{{ x }}{{ loop.length }}{% endfor %} {% for x in l[::-1] %}{{ x }}{% endfor %} {% for x in (1, 2) %}{{ x }}{% endfor %}
{% for x in l recursive %}{{ loop.depth0 }}{% endfor %} {% for loop2 in l %}{{ loop2 }}{% endfor %}
{% set ns = namespace(ok=true) %}{% for x in range(6) if ns.ok %}{{ x }}{% if x == 2 %}{% set ns.ok = false %}{% endif %}{% endfor %}
{% for x in l %}{{ x }}{% else %}e{% endfor %}{% for x in l %}{% break %}{% else %}never{% endfor %}
{% for i in [1, 2] %}{% for j in [1, 2, 3] %}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}
{% for i in range(3) %}{% set s2 %}{% if i == 1 %}{% continue %}{% endif %}<{{ i }}>{% endset %}{{ s2 }}{% endfor %}
""",
    "set": r"""
{% set a = 1 %}{{ a }} {% set a, b = 1, 2 %}{{ a }}{{ b }} {% set (a, b) = (3, 4) %}{{ a }}{{ b }} {% set x = 1, 2 %}{{ x }} {% set y = 1, %}{{ y }}
{% set x %}a{{ n }}b{% endset %}[{{ x }}] {% set x | upper | trim %} abc {% endset %}[{{ x }}] {% set x | replace('a', 'b') %}aaa{% endset %}{{ x }}
{% if t %}{% set z = 5 %}{% endif %}{{ z }} {% set e2 = e or 'x' %}{{ e2 }} {% set q = {'a': [1]} %}{{ q.a[0] }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }} {% set ns.c = [ns.a] %}{{ ns.c }} {% set ns.a = ns.a + 1 %}{{ ns.a }}
{% set d.x = 1 %}
{% set missing.x = 1 %}
{% set a, b = 1 %}
{% with a = 1, b = n %}{{ a }}{{ b }}{% set c = 7 %}{{ c }}{% endwith %}{{ a is defined }}{{ c is defined }} {% with %}{% set w2 = 1 %}{% endwith %}{{ w2 is defined }}
{% with a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}{% endwith %}
{% set ns = namespace() %}{% set ns.x %}block{% endset %}{{ ns.x }} {% set ns.x, k = 1, 2 %}{{ ns.x }}{{ k }}
{% filter upper %}abc {{ s }}{% endfilter %} {% filter replace('a', 'x') | upper %}banana{% endfilter %}
{% block title %}{{ n }}{% set inner = 1 %}{% endblock %}{{ inner is defined }} {% autoescape false %}{{ '<b>' }}{% endautoescape %}
{% generation %}gen {{ n }}{% set g = 1 %}{% endgeneration %}{{ g is defined }}
{% set messages = messages[1:] %}{{ messages|length }}{% for m in messages %}{% set messages = [] %}{% endfor %}{{ messages|length }}
{% set range = 5 %}{{ range }} {% set true2 = true %}{{ true2 }}
{% for x in [1] %}{{ n is defined }}{% endfor %}{% set n = 1 %}{{ n }}
{% macro f() %}{{ n }}|{{ s is defined }}{% endmacro %}{{ f() }}{% set n = 1 %}{{ f() }}
{% for x in [1, 2] %}{% for y in [1] %}{{ n is defined }}{% endfor %}{% set n = 5 %}{% for y in [1] %}{{ n }}{% endfor %}{% endfor %}{{ n }}
{% for x in [1] %}{{ n }}{% endfor %}{% if t %}{% set n = 9 %}{% endif %}{{ n }} {% for x in [1] %}{{ s }}{% endfor %}{% set s = s ~ '!' %}{{ s }}
{% set f %}{{ l is defined }}{% endset %}{{ f }}{% set l = 1 %} {% with %}{% for q in [1] %}{{ d is defined }}{% endfor %}{% set d = 2 %}{{ d }}{% endwith %}
{% set true = 1 %}
{% set a.b.c = 1 %}
{% set 5 = 1 %}
{% set x = 1 %}{% set x = x + 1 %}{{ x }} {% set l2 = l + [9] %}{{ l2 }} {% set ns2 = namespace(l=[]) %}{% for i in l %}{% set ns2.l = ns2.l + [i * 2] %}{% endfor %}{{ ns2.l }}
""",
    "macros": r"""
{% macro f(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(1, c='z') }} {{ f(b=5, a=4) }} {{ f() }} {{ f(*[7, 8]) }} {{ f(**{'a': 1, 'b': 0}) }}
{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}{{ f(1) }} {{ f.name }} {{ f.arguments }} {{ f is callable }}
{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }} {{ f(1, 2) }}
{% macro f() %}{{ varargs }} {{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}
{% macro f() %}{% endmacro %}{{ f(1) }}
{% macro f() %}{% endmacro %}{{ f(x=1) }}
{% macro f(a) %}{% endmacro %}{{ f(1, a=2) }}
{% macro f() %}[{{ caller() }}]{% endmacro %}{% call f() %}body {{ n }}{% endcall %}
{% macro f(items) %}{% for i in items %}{{ caller(i, loop.index) }};{% endfor %}{% endmacro %}{% call(x, y) f(l) %}{{ x }}@{{ y }}{% endcall %}
{% macro f() %}{{ caller is defined }}{% endmacro %}{{ f() }}
{% macro fact(k) %}{% if k <= 1 %}1{% else %}{{ k }}*{{ fact(k - 1) }}{% endif %}{% endmacro %}{{ fact(5) }}
{% macro f() %}{{ later }}{% endmacro %}{% set later = 'seen' %}{{ f() }}
{% set g = 1 %}{% macro f() %}{{ g }}{% set g = 2 %}{{ g }}{% endmacro %}{{ f() }}{{ g }}
{% macro f(x) %}  {{ x }}  {% endmacro %}[{{ f(1)|trim }}] {{ f('a') ~ 'b' }} {{ f(1)|length }} {{ f(2) is string }}
{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}
{% for i in l %}{% macro m() %}<{{ i }}>{% endmacro %}{{ m() }}{% endfor %}
{% macro f(a, b) %}{% endmacro %}{{ f(1, 2, 3) }}
{% macro f(x, y=none) -%} {{ x }}{% if y is not none %}:{{ y }}{% endif %} {%- endmacro %}[{{ f(1) }}][{{ f(1, 2) }}][{{ f(1, y=0) }}]
{% macro outer() %}{% macro inner(q) %}i{{ q }}{% endmacro %}{{ inner(1) }}{{ inner(2) }}{% endmacro %}{{ outer() }}{{ inner is defined }}
{% macro f(a=1, b) %}{% endmacro %}
{% macro f() %}{{ loop is defined }}{% endmacro %}{% for x in [1] %}{{ f() }}{% endfor %}
{% macro w() %}{% set ns = namespace(t='') %}{% for c in 'abc' %}{% set ns.t = c ~ ns.t %}{% endfor %}{{ ns.t }}{% endmacro %}{{ w() }}
{% set ns = namespace() %}{% macro f() %}F{% endmacro %}{% set ns.f = f %}{{ ns.f() }} {% set fs = [f] %}{{ fs[0]() }} {% set dd = {'k': f} %}{{ dd.k() }}
{% macro f(kwargs) %}{{ kwargs }}{% endmacro %}{{ f(1) }} {{ f(kwargs=2) }}
{% call missing() %}{% endcall %}
""",
    "tests": r"""
{{ 1 is odd }} {{ 2 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ n is defined }} {{ missing is undefined }} {{ missing is not defined }} {{ none_ is none }} {{ n is not none }}
{{ t is boolean }} {{ n is boolean }} {{ t is true }} {{ t is false }} {{ 1 is true }} {{ n is integer }} {{ t is integer }} {{ f is float }} {{ n is float }} {{ n is number }} {{ t is number }} {{ f is number }} {{ s is number }}
{{ s is string }} {{ n is string }} {{ d is mapping }} {{ l is mapping }} {{ namespace() is mapping }} {{ l is sequence }} {{ d is sequence }} {{ s is sequence }} {{ n is sequence }} {{ missing is sequence }} {{ d.items() is sequence }} {{ range(1) is sequence }} {{ (1,) is sequence }} {{ l|select is sequence }}
{{ l is iterable }} {{ s is iterable }} {{ n is iterable }} {{ none_ is iterable }} {{ missing is iterable }} {{ d.items() is iterable }} {{ l|select is iterable }}
{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'Abc' is lower }} {{ '1' is lower }} {{ 'a1' is lower }} {{ 'é' is lower }} {{ 'É' is upper }}
{{ 1 is eq 1 }} {{ 1 is equalto 2 }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 1 is lessthan 0 }} {{ 1 is gt 0 }} {{ 1 is greaterthan 3 }} {{ 1 is ge 1 }} {{ 1 is le 0 }} {{ 1 is sameas 1 }} {{ l is sameas l }} {{ true is sameas true }} {{ none is sameas none }} {{ 1 is sameas true }}
{{ 'a' is in 'abc' }} {{ 1 is in [2] }} {{ 1 is not in [2] }} {{ range is callable }} {{ s is callable }} {{ 'x'|safe is escaped }} {{ 'x' is escaped }} {{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }}
{{ missing is callable }} {{ ('%s' % missing) ~ ('x' % missing) ~ ('x' % range(3)) }}
{{ s is nope }}
{% if false %}{{ s is nope }}{% endif %}ok
{{ s|nope }}
{% if false %}{{ s|nope }}{% endif %}ok
{% if true %}{{ s|nope }}{% endif %}
{{ not missing is defined }} {{ missing is defined or t }} {{ n is defined and n > 2 }} {{ n + 1 is odd }} {{ n is odd and f is float }}
{{ l is string or l is mapping }}
{{ 3 is odd is true }}
{{ 'a' is odd }}
{{ 3.0 is odd }} {{ 2.5 is even }} {{ true is odd }} {{ missing is none }} {{ none is defined }} {{ missing is string }} {{ missing is mapping }}
""",
    "text filters": r"""
{{ '  x y '|trim }}| {{ 'xxaxx'|trim('x') }} {{ 'Ab'|upper }} {{ 'Ab'|lower }} {{ 'hELLO wORLD'|title }} {{ "it's o'clock-now (foo) bar"|title }} {{ 'hELLO'|capitalize }} {{ ''|capitalize }}| {{ 5|upper }} {{ none|upper }} {{ missing|upper }}|
{{ 'straße ǆ ŉ İ ΑΣ ΣΑ'|upper }} {{ 'STRASSE İ ΑΣ Σ ΑΣΑ'|lower }} {{ 'ǆabc ßx'|capitalize }} {{ 'éa ñb'|title }}
{{ 'a b'|replace(' ', '_') }} {{ 'aaa'|replace('a', 'b', 2) }} {{ 'abc'|replace('', '-') }} {{ 'abc'|replace('', '-', 2) }} {{ 123|replace(2, 'x') }} {{ none|replace('N', 'x') }}
{{ 'a\nb\n\nc'|indent }}| {{ 'a\nb'|indent(2) }}| {{ 'a\nb'|indent(2, true) }}| {{ 'a\n\nb'|indent(2, blank=true) }}| {{ 'a\nb'|indent('>> ', first=true) }}| {{ 'a\n'|indent }}|
{{ 5|indent }}
{{ missing|indent }}
{{ 'abc'|center(9) }}| {{ 'abcd'|center(9) }}| {{ 'abc'|center(2) }}
{{ 'foo bar baz qux'|truncate(9) }} {{ 'foo bar baz qux'|truncate(9, true) }} {{ 'foo bar baz qux'|truncate(11) }} {{ 'foo bar baz qux'|truncate(11, false, '...', 0) }} {{ 'foobarbaz'|truncate(5, leeway=0) }}
{{ 'a b, c_d e-f 12'|wordcount }} {{ ''|wordcount }} {{ u|wordcount }}
{{ '%s-%d-%5.2f|%-5s|%05d|%x|%X|%o|%e|%g|%r|%%'|format('a', 3, 2.5, 'l', 42, 255, 255, 8, 12345.678, 0.0001, 'q') }} {{ '%(a)s %(b)03d'|format(a=1, b=2) }}
{{ "%s and %s" % ('a', 'b') }} {{ '%s' % 5 }} {{ '%s' % [1, 2] }} {{ '%s' % none }} {{ '%d%%' % 50 }} {{ '%+d % d' % (5, 5) }} {{ '%.3s|%5s|%-5s|' % ('abcdef', 'é', 'é') }} {{ '%c%c' % (65, 'b') }} {{ '%(x)s' % {'x': 1} }} {{ '%s' % {'x': 1} }} {{ '%i %u' % (1.9, 2) }} {{ '%5d|%-5d|%05.1f' % (1, 2, 3.14159) }} {{ '%#x %#o' % (255, 8) }} {{ '%.2e' % 12345 }} {{ '%G' % 1e-10 }} {{ '%s' % true }} {{ '%d' % true }}
{{ '%s %s' % 'a' }}
{{ '%s' % (1, 2) }}
{{ '%d' % 'a' }}
{{ 'x' % 5 }}
{{ '%q' % 5 }}
{{ '%' % 5 }}
{{ '%(x)s' % 5 }}
{{ '<b>&"\''|escape }} {{ '<b>'|e|e }} {{ '<b>'|e|forceescape }} {{ '<b>'|safe }} {{ '<'|safe + '<' }} {{ '<' + '<'|safe }} {{ ('<'|safe) ~ '<' }} {{ ('<'|safe)|upper + '&' }} {{ ['<'|safe, '<']|join('&') }} {{ ('%s<'|safe) % '<' }} {{ ('<'|safe) * 2 + '<' }} {{ ('a<'|safe)|replace('<', '>') + '<' }} {{ ('a,b'|safe).split(',')[0] + '<' }} {{ ['<'|safe] }} {{ ('{}<'|safe).format('<') }} {{ ('<'|safe)|string + '<' }} {{ ('<x'|safe)[1:] + '<' }} {{ ('a'|safe).join(['<', '>']) }} {{ ('ab'|safe).replace('b', '<') }} {{ 5|safe + '<' }} {{ ('<'|safe) == '<' }} {{ {'<': 1}['<'|safe] }}
{{ {'a': 'x y', 'b': none, 'c': '"'}|xmlattr }}| {{ 'a b/é?&='|urlencode }} {{ {'a': 'x y/', 'b': 1}|urlencode }} {{ [('a', 1)]|urlencode }}
{{ 'a1 b2'|string|length }} {{ 5|string + 'x' }} {{ none|string }} {{ [1]|string }} {{ missing|string }}| {{ 12.0|string }}
""",
    "number filters": r"""
{{ '42'|int }} {{ '42.7'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '0x1f'|int(base=16) }} {{ '1f'|int(0, 16) }} {{ '0b11'|int(0, 0) }} {{ 3.9|int }} {{ -3.9|int }} {{ true|int }} {{ none|int }} {{ []|int(5) }} {{ ' 12 '|int }} {{ '1e3'|int }} {{ '1_000'|int }} {{ '-5'|int }} {{ '+5'|int }} {{ ''|int }} {{ 'inf'|int }} {{ 'nan'|int(3) }}
{{ '1.5'|float }} {{ 'x'|float }} {{ 'x'|float(2) }} {{ 1|float }} {{ none|float }} {{ '1e3'|float }} {{ 'inf'|float }} {{ '-nan'|float }} {{ ' 2 '|float }} {{ '1_0.5'|float }} {{ '.5'|float }} {{ '5.'|float }} {{ true|float }}
{{ missing|int }}
{{ missing|float }}
{{ 42.55|round }} {{ 42.55|round(1) }} {{ 2.5|round }} {{ 3.5|round }} {{ 42|round }} {{ 42.4|round(0, 'ceil') }} {{ 42.57|round(1, 'floor') }} {{ 1234|round(-2) }} {{ 1250|round(-2) }} {{ 1350|round(-2) }} {{ 1234.5|round(-2) }} {{ 2.675|round(2) }} {{ -2.5|round }} {{ 42|round(method='ceil') }} {{ 0.5|round|int }} {{ 1e20|round }} {{ true|round }}
{{ 'x'|round }}
{{ 1|round(1, 'nope') }}
{{ -5|abs }} {{ (-5)|abs }} {{ -2.5|abs }} {{ true|abs }}
{{ 'x'|abs }}
{{ 1|filesizeformat }} {{ 999|filesizeformat }} {{ 1000|filesizeformat }} {{ 1536|filesizeformat(true) }} {{ 1e9|filesizeformat }} {{ '5'|filesizeformat }}
{{ [1, 2, 3]|sum }} {{ [1.5, 2]|sum }} {{ []|sum }} {{ people|sum('age') }} {{ people|sum(attribute='age', start=10) }} {{ [[1], [2]]|sum(start=[]) }}
{{ ['a']|sum }}
""",
    "sequence filters": r"""
{{ l|length }} {{ s|length }} {{ u|length }} {{ d|count }} {{ missing|length }} {{ d.items()|length }} {{ range(5)|length }}
{{ n|length }}
{{ none|length }}
{{ (l|select)|length }}
{{ l|first }} {{ l|last }} {{ s|first }} {{ s|last }} {{ []|first is undefined }} {{ []|last is undefined }} {{ d|first }} {{ d|last }} {{ missing|first is undefined }} {{ range(3)|last }} {{ l|select|first }} {{ u|last }}
{{ l|select|last }}
{{ l|sort }} {{ l|sort(reverse=true) }} {{ w|sort }} {{ w|sort(case_sensitive=true) }} {{ people|sort(attribute='age')|map(attribute='name')|list }} {{ people|sort(attribute='age,name')|map(attribute='name')|list }} {{ people|sort(true, attribute='age')|map(attribute='name')|list }} {{ 'cab'|sort }} {{ d|sort }} {{ [none, none]|sort }} {{ [(2, 'a'), (1, 'b')]|sort }} {{ [1, 1.0, true]|sort }}
{{ [1, 'a']|sort }}
{{ [none, 1]|sort }}
{{ d|dictsort }} {{ d|dictsort(true) }} {{ d|dictsort(false, 'value') }} {{ d|dictsort(reverse=true) }} {{ {}|dictsort }}
{{ l|dictsort }}
{{ missing|dictsort }}
{{ l|reverse|list }} {{ s|reverse }} {{ u|reverse }} {{ (1, 2)|reverse|list }} {{ d|reverse|list }} {{ d.items()|reverse|list }}
{{ 5|reverse }}
{{ l|join }} {{ l|join(', ') }} {{ people|join('|', attribute='name') }} {{ 'abc'|join('-') }} {{ [none, 1.5, true, 'x']|join(' ') }} {{ d|join }} {{ missing|join }}| {{ []|join }}| {{ l|join(1) }}
{{ 5|join }}
{{ 'abc'|list }} {{ d|list }} {{ d.items()|list }} {{ range(3)|list }} {{ missing|list }} {{ (1, 2)|list }} {{ u|list }}
{{ none|list }}
{{ w|unique|list }} {{ w|unique(true)|list }} {{ [1, 1.0, true, 2]|unique|list }} {{ people|unique(attribute='age')|map(attribute='name')|list }} {{ people|unique(attribute='city')|map(attribute='city')|join }} {{ ['a', 'A', 'b']|unique|join }}
{{ [[1]]|unique|list }}
{{ l|min }} {{ l|max }} {{ w|min }} {{ w|max }} {{ w|min(true) }} {{ []|min is undefined }} {{ people|max(attribute='age') }} {{ people|min(attribute='name') }} {{ 'abc'|max }} {{ [1, 1.0]|max }}
{{ [1, 'a']|min }}
{{ people|map(attribute='name')|join(',') }} {{ people|map(attribute='nope', default='?')|join }} {{ people|map(attribute='nope')|list }} {{ w|map('upper')|list }} {{ [1.5, 2.5]|map('round')|list }} {{ l|map('string')|join }} {{ [[1, 2]]|map('join', '-')|list }} {{ [[1, 2]]|map(attribute=0)|list }} {{ [{'a': {'b': 3}}]|map(attribute='a.b')|list }} {{ [[5, 6]]|map(attribute='1')|list }} {{ none|map('upper')|list }} {{ missing|map('upper')|list }}
{{ l|map('nope')|list }}
{{ l|map|list }}
{{ l|map(attribute='x', nope=1)|list }}
{{ l|select('odd')|list }} {{ l|reject('odd')|list }} {{ [0, 1, '', 'x', none]|select|list }} {{ [0, 1]|reject|list }} {{ l|select('gt', 1)|list }} {{ l|select('in', [1, 2])|list }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|selectattr('role', 'eq', 'user')|map(attribute='content')|first }} {{ messages|rejectattr('role', 'in', ['user', 'tool'])|map(attribute='role')|join(',') }} {{ messages|selectattr('tool_calls')|list|length }} {{ messages|selectattr('tool_calls', 'defined')|list|length }} {{ messages|selectattr('content', 'none')|list|length }} {{ messages|selectattr('role', '==', 'tool')|map(attribute='content')|list }} {{ none|select('odd')|list }}
{{ l|select('nope')|list }}
{{ 5|select('odd')|list }}
{{ messages|selectattr|list }}
{{ range(7)|batch(3)|list }} {{ range(7)|batch(3, 'x')|list }} {{ []|batch(2)|list }} {{ range(7)|slice(3)|list }} {{ range(7)|slice(3, 'x')|list }} {{ range(2)|slice(4)|list }}
{{ people|groupby('city') }} {% for g in people|groupby('age') %}{{ g.grouper }}:{{ g.list|length }} {{ g[0] }} {% endfor %}{% for k, v in people|groupby('nope', default='-') %}{{ k }}{{ v|length }}{% endfor %} {% for k, v in people|groupby('city', case_sensitive=true) %}{{ k }}{% endfor %}
{{ missing|default('x') }} {{ none|default('x') }} {{ none|default('x', true) }} {{ ''|d('x', boolean=true) }} {{ missing|default }}| {{ nested.nope|default([]) }} {{ 0|default(5) }} {{ missing|default(none) }} {{ missing|d(missing)|default(3) }}
{{ missing.x|default('x') }}
{{ d|items|list }} {{ missing|items|list }}
{{ l|items|list }}
{{ l|select|string is string }} {% set g = l|select %}{{ g|list }}{{ g|list }} {{ (l|map('string'))|join }} {{ 1 in l|select }} {% if l|select('gt', 5) %}always{% endif %}
{{ l|random }}{{ 1/0 }}
""",
    "json": r"""
{{ d|tojson }} {{ l|tojson }} {{ s|tojson }} {{ n|tojson }} {{ f|tojson }} {{ t|tojson }} {{ none_|tojson }} {{ u|tojson }} {{ (1, 2)|tojson }} {{ {}|tojson }} {{ []|tojson }}
{{ '<a href="x">&\'\n\t\r\b\f\x01\x7f\u2028/\\'|tojson }} {{ u|tojson(ensure_ascii=true) }} {{ u|tojson(true) }} {{ '\x7f'|tojson(ensure_ascii=true) }}
{{ {'a': [1, {'b': []}], 'c': {}}|tojson(indent=2) }}
{{ {'a': [1, {'b': none}], 'c': 1.0}|tojson(indent=4) }}
{{ [1, [2]]|tojson(indent='--') }} {{ [1]|tojson(indent=0) }}
{{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ {'b': 1, 'a': [1, 2]}|tojson(separators=(',', ':')) }} {{ {'a': 1}|tojson(indent=1, separators=[', ', '= ']) }}
{{ {1: 2, none: 3, true: 4, 2.5: 5}|tojson }} {{ 1e20|tojson }} {{ 1e16|tojson }} {{ 0.1|tojson }} {{ ('inf'|float)|tojson }} {{ ('nan'|float)|tojson }} {{ 1.0|tojson }} {{ messages|tojson }}
{{ missing|tojson }}
{{ d.items()|tojson }}
{{ range(3)|tojson }}
{{ l|select|tojson }}
{{ namespace(a=1)|tojson }}
{{ {(1, 2): 3}|tojson }}
{{ {1: 1, 'a': 2}|tojson(sort_keys=true) }}
{{ ('x'|tojson) + '<' }} {{ {'k': '<'}|tojson|safe }} {{ messages[2].tool_calls[0].function|tojson }} {{ ('<'|safe)|tojson }}
""",
    "str methods": r"""
{{ ' a b '.strip() }}| {{ 'xaxx'.strip('x') }} {{ ' a '.lstrip() }}| {{ ' a '.rstrip() }}| {{ 'abcab'.rstrip('ab') }} {{ 'éaé'.strip('é') }} {{ '\u3000a\u00a0'.strip() }} {{ 'a'.strip(none) }}
{{ 'a b  c '.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a  b '.split(none, 1) }} {{ ' a  b c '.rsplit(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'aXXbXXc'.split('XX')[-1] }} {{ 'a b'.split(' ', maxsplit=1) }} {{ 'abc'.split(sep='b') }} {{ 'aaa'.rsplit('aa') }} {{ ' a b '.split(' ') }} {{ 'a b c'.split(maxsplit=0) }} {{ ' x '.rsplit(maxsplit=0) }}
{{ 'a'.split('') }}
{{ 'a'.split(1) }}
{{ 'a\nb\r\nc\rd\x0be\u2028f'.splitlines() }} {{ 'a\nb\n'.splitlines(true) }} {{ ''.splitlines() }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith(()) }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.endswith('b', 0, 2) }} {{ ''.startswith('') }} {{ 'abc'.startswith('', 4) }} {{ 'abc'.startswith('c', -1) }}
{{ 'abc'.startswith(5) }}
{{ 'abc'.startswith(['a']) }}
{{ 'abc'.startswith(none) }}
{{ 'aXbX'.replace('X', '-') }} {{ 'aaa'.replace('a', 'b', 1) }} {{ 'abc'.replace('', '.') }} {{ 'é'.replace('é', 'ee') }} {{ 'a'.replace('a', '') }}|
{{ 'a'.replace('a', 1) }}
{{ 'abcabc'.find('c') }} {{ 'abc'.find('z') }} {{ 'abcabc'.rfind('c') }} {{ 'abc'.index('b') }} {{ 'abcabc'.find('a', 1) }} {{ 'abcabc'.find('c', 0, 2) }} {{ u.find('straße') }} {{ u.rfind('r') }} {{ 'abc'.find('') }} {{ 'abc'.rfind('') }} {{ 'abc'.find('', 3) }} {{ 'abc'.find('', 4) }} {{ 'banana'.count('an') }} {{ 'aaaa'.count('aa') }} {{ 'abc'.count('') }} {{ u.count('') }}
{{ 'abc'.index('z') }}
{{ 'aBc'.upper() }} {{ 'aBc'.lower() }} {{ "they're bill's".title() }} {{ 'hello WORLD'.capitalize() }} {{ 'aBc'.swapcase() }} {{ 'Straße'.casefold() }} {{ 'ß'.upper() }} {{ 'ŉa'.title() }} {{ 'x1y'.title() }} {{ 'ΑΣ'.lower() }}
{{ 'a'.center(5) }}| {{ 'ab'.center(5, '*') }} {{ 'a'.ljust(3, '-') }} {{ 'a'.rjust(3) }} {{ '42'.zfill(5) }} {{ '-42'.zfill(5) }} {{ 'é'.ljust(3, 'é') }} {{ ''.zfill(2) }} {{ '+'.zfill(3) }}
{{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('x') }} {{ 'abc'.rpartition('x') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ 'abc'.removeprefix('x') }} {{ 'a\tb'.expandtabs(4) }} {{ 'ab\t\tc\n\td'.expandtabs() }}
{{ '-'.join(['a', 'b']) }} {{ ''.join('abc') }} {{ ', '.join(d) }} {{ ', '.join(people|map(attribute='name')) }}
{{ '-'.join([1]) }}
{{ 'abc'.isalpha() }} {{ 'ab1'.isalnum() }} {{ '12'.isdigit() }} {{ '12'.isdecimal() }} {{ '12'.isnumeric() }} {{ ''.isdigit() }} {{ ' \n'.isspace() }} {{ ''.isspace() }} {{ 'abc'.islower() }} {{ 'ABC'.isupper() }} {{ 'Abc Def'.istitle() }} {{ 'AbC'.istitle() }} {{ 'a_1'.isidentifier() }} {{ '1a'.isidentifier() }} {{ 'é'.isascii() }} {{ 'a\n'.isprintable() }} {{ ''.isprintable() }} {{ 'é_'.isalnum() }}
{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format(1, 2) }} {{ '{a} {b[x]} {c.d}'.format(a=1, b={'x': 2}, c={'d': 3}) }} {{ '{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd') }} {{ '{:05d} {:,} {:x} {:#x} {:b} {:e} {:.2f} {:%} {:+} {:g}'.format(42, 1234567, 255, 255, 5, 12345.6, 3.14159, 0.5, 7, 0.00001) }} {{ '{!r} {!s}'.format('a', 'b') }} {{ '{{}}'.format() }} {{ '{:{w}}|'.format('a', w=4) }} {{ '{0[0]} {0[1]}'.format([5, 6]) }} {{ '{:.3}'.format('abcdef') }} {{ '{}'.format(none) }} {{ '{:5}|{:<5}|'.format(1, 2) }} {{ '{:_}'.format(1234567) }} {{ '{:,.2f}'.format(1234567.891) }} {{ '{:.3}'.format(1234.5) }} {{ '{}'.format(1.0) }} {{ '{:=+6d}'.format(5) }} {{ '{:c}'.format(65) }} {{ '{:5}'.format(true) }} {{ '{:d}'.format(true) }} {{ '{}'.format(missing) }}| {{ '{:010.3f}'.format(-3.14159) }} {{ '{:x<6}'.format('é') }}
{{ '{}'.format() }}
{{ '{a}'.format(1) }}
{{ '{'.format(1) }}
{{ '}'.format(1) }}
{{ '{} {0}'.format(1) }}
{{ '{:d}'.format('a') }}
{{ '{:5}'.format([1]) }}
{{ '{:z}'.format(1) }}
{{ '{a}'.format_map({'a': 5}) }} {{ 'x'.format }}{{ 1/0 }}
{{ 'a'.upper }}{{ 1/0 }}
{{ 'a'.upper(1) }}
{{ s.split(' ')[0].lower()|title ~ '!' }} {{ messages[1].content.split('\n')|map('trim')|join('/') }} {{ messages[1]['content'].strip().replace('\n', ' ') }}
""",
    "whitespace": "",
    "functions": r"""
{{ range(5)|list }} {{ range(2, 5)|list }} {{ range(5, 0, -2)|list }} {{ range(0)|list }} {{ range(3, 1)|list }}
{{ range(0, 10, 0) }}
{{ range(100001) }}
{{ range(1.5) }}
{{ range('a') }}
{{ range() }}
{{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }} {{ dict([('a', 1), ['b', 2]]) }} {{ dict() }} {{ dict(d, a=9) }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}
{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}c
{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y %H:%M:%S %A %B %j %-d %y %I %p %%') }}
{{ raise_exception('no: ' ~ n) }}
{% if false %}{{ raise_exception('x') }}{% endif %}fine
{{ nope(1) }}
{{ namespace(1) }}
{{ range(3, step=1) }}
{{ f(**{'a': 1}) }}
{{ dict(**{'a': 1}, **{'b': 2}) }}
{{ dict(a=1, **{'a': 2}) }}
{{ dict(a=1, a=2) }}
{{ dict(*[[('a', 1)]]) }} {{ range(*[1, 4])|list }} {{ 'x'.join(*[['a', 'b']]) }} {{ range(1, 3,)|list }}
""",
    "syntax errors": r"""
{% if %}x{% endif %}
{% if t %}
{% endif %}
{% for %}{% endfor %}
{% for x l %}{% endfor %}
{{ }}
{{ 1 + }}
{{ (1 }}
{{ [1, }}
{{ {'a' 1} }}
{{ 'abc }}
{{ a b }}
{{ 1 ! 2 }}
{% unknown %}
{% do l.append(1) %}
{% break %}
{{ x | }}
{{ x is }}
{{ x. }}
{{ x[ }}
{# open
{% raw %}open
{{ f(a=1, 2) }}
{{ f(**a, *b) }}
{% endfor %}
{% set x %}
{% macro %}{% endmacro %}
{% macro f(1) %}{% endmacro %}
{{ } }}
{{ ) }}
{{ (1] }}
{% include 'x' %}
{% extends 'x' %}
{% import 'x' as y %}
{% if false %}{% include 'x' %}{% endif %}ok
{{ 1 if }}
{{ not }}
{% for x in l %}{% macro f() %}{% break %}{% endmacro %}{% endfor %}
{{ '\x4' }}
{{ '\u12' }}
{% for loop in l %}{% endfor %}
{{ x is defined is }}
{{ a..b }}
{{ 1.5.2 }}
{{ $ }}
{{ "unterminated }}
{% block a %}{% endblock %}{% block a %}{% endblock %}
""",
}

# Those with line ends in them, which the lines above cannot hold.
WHITESPACE = [
    "a\n{% if t %}\nb\n{% endif %}\nc\n", "a\n  {% if t %}\n  b\n  {% endif %}\nc",
    "a {%- if t %} b {%- endif %} c", "a {% if t -%} b {% endif -%} c", "  {%+ if t %}x{% endif %}",
    "a\n\n  {%- if t -%}  \n\n b \n {%- endif -%}\n c", "{{ n }}\n{{ n -}}\n x\n {{- n }}\n",
    "x {# c #} y\n{# line #}\nz {#- c -#} w", "  {# c #}\n  {{ n }}\n", "{# a\n b #}\n\nx",
    "{% raw %}{{ x }} {% if %}{% endraw %}!", "a\n  {% raw %}\n {{ x }} \n  {% endraw %}\nb",
    "a {%- raw -%} {{ x }} {%- endraw -%} b", "{%raw%}{%endraw%}{%-  raw  %}x{%  endraw -%}\n y",
    "a\r\nb\rc\n{{ 'x' }}\r\n", "x\n\n", "\n", "", "{{ 'a' }}\n\n{{ 'b' }}\n",
    "\t{% if t %}\t\nx\t{% endif %}\t\ny", "{% set x = 1 %}\n\n{{ x }}", "{% for i in l %}\n- {{ i }}\n{% endfor %}\nend",
    "{% for i in l -%}\n  {{ i }}\n{%- endfor %}", "  {{ n }}  \n  {{- n -}}  \n  x",
    "{%- for m in messages %}\n    {%- if m.role == 'user' %}\n        {{- '<u>' + m.content }}\n    {%- endif %}\n{%- endfor %}\n",
    "a{% if t +%}\nb{% endif +%}\nc", "{{ {'a': {'b': 1}} }}", "{{ {'a': {'b': 1}}.a.b}}{{-n}}{{+n}}",
    "{{ '}}' }}{{ \"%}\" }}{% if '%}' %}y{% endif %}", "{{ '{{' }}{{ '{%' }}{{ '{#' }}", "{ { } } {x} % # {",
    "\u3000{%- if t %}\u00a0{%- endif %}", "a\n\u00a0{% if t %}x{% endif %}", "{#- a #}\n {#+ b #}\nx", "{# {{ x }} {% if %} #}",
    "{{ n\n}}\n{%\nif t\n%}\nq{%\nendif\n%}", "{{ 1 }}{#x#}\n{{ 2 }}", " \n {% if t %}a{% endif %} \n {% if t %}b{% endif %} \n",
    "{% if t %}{% endif %}  {% if t %}{% endif %}\n", "  x {% if t %}a{% endif %}\n", "{{ 'a\nb' }}{{ 'a\r\nb' }}",
    "{% if t %}\r\nx\r\n{% endif %}\r\n", "{# c +#}\nx", "{#c-#}\n\n x", "a{{ n }}\n{% if t %}\n{{ n }}\n{% endif %}",
]


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def to_json(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, "jinja2.ext.loopcontrols"])
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = datetime.datetime(2026, 1, 2, 3, 4, 5).strftime
    return env


def render(template):
    try:
        return {"template": template, "text": environment().from_string(template).render(**INPUT)}
    except Exception as e:
        return {"template": template, "error": f"{type(e).__name__}: {e}"[:200]}


def main():
    cases = []
    for subject, lines in SNIPPETS.items():
        templates = WHITESPACE if subject == "whitespace" else split(lines)
        cases += [dict(subject=subject, **render(t)) for t in templates]
    out = pathlib.Path(__file__).parent.parent / "data" / "jinja_snippets.json"
    dump = lambda value: json.dumps(value, ensure_ascii=False)
    lines = ",\n".join(map(dump, cases))
    out.write_text(f'{{"input": {dump(INPUT)},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(len(cases), "snippets,", sum("error" in c for c in cases), "of them errors")


def split(lines):
    return [t.replace("\0", "\n") for t in lines.strip("\n").replace("\\\n", "\\\0").split("\n")]


if __name__ == "__main__":
    main()
