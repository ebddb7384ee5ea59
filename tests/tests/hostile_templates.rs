//! A chat template is code from whoever made the model: whatever it does ends soon, with a prompt or an error that has a code, and
//! takes no more memory than four times what it was given and 16 MiB, counted by the allocator.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use openweights::text::{ChatTemplate, Message, RenderOptions};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const MOST_MEMORY: usize = 16 << 20;
const MOST_TIME: Duration = Duration::from_secs(2);

/// Renders a conversation of one message; gives what came of it, the time and the peak.
fn render(source: &str) -> (Result<String, String>, Duration, usize) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let start = Instant::now();
    let message = Message { role: "user".into(), content: "Tell me a joke about lists of lists.".into() };
    let rendered = ChatTemplate::new(source, BTreeMap::from([("bos_token", "<s>".into())]))
        .and_then(|template| template.render(&[message], RenderOptions { add_generation_prompt: true, now: Some(0) }));
    let took = start.elapsed();
    let rendered = rendered.map_err(|e| format!("{}: {e}", e.code()));
    (rendered, took, HEAP.peak_usage().saturating_sub(before))
}

/// A million times `body`.
fn often(body: &str) -> String {
    let set = "{% set n, ns = 99999, namespace(a='xxxxxxxx', l=['x'], m={}, n=0) %}";
    format!("{set}{{% for i in range(999) %}}{{% for j in range(999) %}}{body}{{% endfor %}}{{% endfor %}}")
}

/// What is stopped: each would take more memory or time than there is.
fn stopped() -> Vec<String> {
    let doubled = [
        "{% set ns.a = ns.a ~ ns.a %}",
        "{% set ns.a = ns.a + ns.a %}",
        "{% set ns.a = ns.a * 9 %}",
        "{% set ns.a = 9 * ns.a %}",
        "{% set ns.a = [ns.a, ns.a] | join(ns.a) %}",
        "{% set ns.a = ns.a.join([1, 2, 3, 4]) %}",
        "{% set ns.a = ns.a.replace('x', 'xx') %}",
        "{% set ns.a = ns.a.replace('', 'xx') %}",
        "{% set ns.a = ns.a | replace('x', ns.a) %}",
        "{% set ns.a = ns.a.split('') | join(ns.a) %}",
        "{% set ns.a = '%s%s' | format(ns.a, ns.a) %}",
        "{% set ns.a = '{0}{0}'.format(ns.a) %}",
        "{% set ns.a = [ns.a, ns.a] | string %}",
        "{% set ns.a = {ns.a: ns.a} | tojson %}",
        "{% set ns.a = (ns.a ~ '\\n' ~ ns.a) | indent(9) %}",
        "{% set ns.a = (ns.a ~ '&\"<') | escape %}",
        "{% set a %}{{ ns.a }}{{ ns.a }}{% endset %}{% set ns.a = a %}",
        "{% set a %}{{ [ns.a, ns.a] }}{% endset %}{% set ns.a = a %}",
        "{% set a %}{% filter upper %}{{ ns.a }}{{ ns.a }}{% endfilter %}{% endset %}{% set ns.a = a %}",
        "{% macro f(a) %}{{ a }}{{ a }}{% endmacro %}{% set ns.a = f(ns.a) %}",
        "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}{% set a %}{% call f() %}{{ ns.a }}{% endcall %}{% endset %}{% set ns.a = a %}",
        "{% set ns.l = ns.l + ns.l %}",
        "{% set ns.l = ns.l * 9 %}",
        "{% set ns.l = [ns.l, ns.l] %}",
        "{% set ns.l = (ns.l ~ ns.l) | list %}",
        "{% set ns.l = (ns.l ~ ns.l).split('') %}",
        "{% set ns.l = ns.l | map('string') | list + ns.l %}",
        "{% set ns.l = [ns.l, ns.l] %}{% if ns.l == [ns.l, ns.l] %}{% endif %}",
        "{% set ns.l = [ns.l, ns.l] %}{% if ns.l < [ns.l, ns.l] %}{% endif %}",
        "{% set ns.l = [ns.l, ns.l] %}{% if 1 in [ns.l] %}{% endif %}",
        "{% set ns.l = [ns.l, ns.l] %}{% set m = {ns.l: 1} %}",
        "{% set ns.l = [ns.l, ns.l] %}{% if ns.m[ns.l] %}{% endif %}",
        "{% set ns.l = [ns.l, ns.l] %}{{ ns.l | tojson(indent=9) }}",
        "{% set ns.l = [ns.l, ns.l] %}{{ ns.l }}",
        "{% set ns.l = [ns.l, ns.l] %}{{ ns }}",
        "{% set ns.l = [ns.l, ns.l] %}{% set l = ns.l | unique %}",
        "{% set ns.m = {'a': ns.m, 'b': ns.m} %}{% if ns.m == {'a': ns.m} %}{% endif %}",
        "{% set ns.l = ns.l + range(99999) | list %}",
        "{% set ns.l = ns.l + range(99999)[::-1] %}",
        "{% set ns.l = [ns.l] %}",
        "{% set ns.m = {'a': ns.m} %}",
        "{% set ns.l = ns.l + [namespace(a=1)] %}",
        "{% set ns.l = [ns.l, ns.l] if j < 12 else ns.l %}{% set a = ns.l | string %}",
        "{% set ns.l = [ns.l, ns.l] if j < 12 else ns.l %}{% set a = ns.l | tojson %}",
        "{% set ns.l = [ns.l, []] if j < 90 else ns.l %}{% set a = ns.l | join %}",
        "{% set ns.l = [ns.l, ns.l] if j < 12 else ns.l %}{% set a = ns.l == [ns.l[0], ns.l] %}",
        "{% set ns.l = ns.l + [[]] if i < 9 else ns.l %}{% set a = ns.l | string %}",
        "{% set ns.l = ns.l + [[]] if i < 9 else ns.l %}{% set a = ns.l | sort %}",
        "{% set ns.l = ns.l + [[]] if i < 9 else ns.l %}{% set a = ns.l | unique | list %}",
        "{% set ns.l = ns.l + [[]] if i < 9 else ns.l %}{% set a = ns.l | map('length') | select | list %}",
        "{% set ns.l = ns.l + [[]] if i < 9 else ns.l %}{% set a = ns.l[::-1] | reverse | list %}",
        "{% set ns.l = ns.l + [[]] if i < 9 else ns.l %}{% for a in ns.l if a %}{% endfor %}",
        "{% set ns.l = ns.l + [dict(a=i)] %}",
        "{% set ns.l = ns.l + [dict(a=i).items()] %}",
        "{% set ns.l = ns.l + [(i | string) * 30] %}",
        "{% set a %}{% continue %}{% endset %}",
        "{% macro f() %}{{ i }}{% endmacro %}",
        "{% with %}{% macro f() %}{{ i }}{% endmacro %}{% endwith %}",
        "{{ 'x' * 999 }}",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "{% set ns.n = ns.n + 1 %}{% for j in range(99999) %}{% endfor %}",
        "{% for c in 'x' * n %}{% break %}{% endfor %}",
        "{% set a = ('x' * n)[i] %}",
        "{% set a = ('x' * n) | length %}",
        "{% set a = ('x' * n).find('y') %}",
        "{% set a = ('x' * n).strip('x' * (n // 99)) %}",
        "{% set a = ('x' * n) | trim('y' * (n // 99)) %}",
        "{% set a = ('x' * n) | upper %}",
        "{% set a = range(99999) | sort %}",
        "{% set a = range(99999) | select('odd') | list %}",
        "{% set a = range(n) | map(attribute='a.' * (n // 999)) | list %}",
        "{% set a = range(99999) | map('replace', '', 'xxxxxx') | list %}",
        "{% set a = {'x' * n: 1} %}",
        "{% set a = ns.m['x' * n] %}",
        "{% set a = ns.m.get('x' * n) %}",
        "{% set a = 'x' * n is eq 'x' * (n - 1) ~ 'y' %}",
        "{% set a = strftime_now('%B' * n) %}",
        "{% set a = messages[::-1] | tojson %}{{ a }}",
    ];
    let alone = [
        "{{ 'x' * 100000000 }}",
        "{{ ('x' * (messages | length) * 100000000) | length }}",
        "{{ ([1] * 99999) * 99999 == [2] }}",
        "{% set n = 999999999 %}{{ 'x' * n }}",
        "{% set n = 18446744073709551615 %}{{ messages * n }}",
        "{% set n = 18446744073709551615 %}{{ [] * n }}",
        "{% set n = 18446744073709551615 %}{{ 'x' * n }}",
        "{% set n = 999999999 %}{{ n ** n }}",
        "{{ 'x' * 2 ** 40 }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '%*d' | format(999999999, 1) }}",
        "{{ messages[0].content | indent(999999999, true) }}",
        "{{ messages[0].content | indent(width=999999999, first=true) }}",
        "{{ messages[0].content.replace('', 'x' * 99999) }}",
        "{{ range(99999999999) | list }}",
        "{{ 2 ** 1000000 }}",
        "{{ 7 is divisibleby(0) }}",
        "{{ 7 % 0 }}{{ 7 // 0 }}",
        "{{ messages[0].content.count('') }}",
        "{% for x in [1, 2] %}{{ loop.cycle() }}{% endfor %}",
        "{% for x in [1, 2] %}{{ loop.changed(loop) }}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.a = {'a': ns} %}{{ ns | tojson }}",
        "{% set ns = namespace() %}{% for x in [1] %}{% set ns.a = loop %}{% endfor %}",
        "{% set ns = namespace() %}{% set m = namespace(a=ns) %}{% set ns.a = m %}",
        "{{ messages | map('@captured') | list }}",
        "{{ messages | map('@passed') | list }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for x in [1] recursive %}{% set a = loop([1]) %}{% endfor %}",
        "{% for x in [1] recursive %}{% set r = loop %}{% set a = r('x' * 9) %}{% endfor %}",
        "{% macro f() %}{{ r([2]) }}{% endmacro %}{% for x in [1] recursive %}{% set r = loop %}{{ f() }}{% endfor %}",
        "{% for x in [1] %}{% macro f() %}{% break %}{% endmacro %}{{ f() }}{% endfor %}",
        "{% for x in [1] %}{% with a = x %}{% break %}{% endwith %}{% endfor %}",
        "{% for x in [1] %}{% with a = x %}{% if a %}{% continue %}{% endif %}{% endwith %}{% endfor %}",
        "{{ f(*messages) }}",
        "{{ dict(**messages[0]) }}",
        "{% include 'chat' %}",
        "{% extends 'chat' %}",
        "{% import 'chat' as chat %}",
        "{% block a %}{% endblock %}",
        "{% autoescape true %}{{ '<' }}{% endautoescape %}",
        "{% do range(9) %}",
        "{{ debug() }}",
        "{{ messages | pprint }}",
        "{{ messages | batch(999999999, 1) }}",
        "{{ undefined_function() }}",
        "{{ messages[0].content.no_method() }}",
    ];
    let deep = [
        "{{ ".to_owned() + &"(".repeat(9999) + "1" + &")".repeat(9999) + " }}",
        "{{ ".to_owned() + &"[".repeat(9999) + &"]".repeat(9999) + " }}",
        "{{ ".to_owned() + &"not ".repeat(9999) + "1 }}",
        "{{ ".to_owned() + &"-".repeat(29999) + "1 }}",
        "{{ messages".to_owned() + &".a".repeat(29999) + " }}",
        "{{ messages".to_owned() + &"[0]".repeat(19999) + " }}",
        "{{ messages".to_owned() + &"|list".repeat(9999) + " }}",
        "{{ messages".to_owned() + &"()".repeat(9999) + " }}",
        "{{ 1".to_owned() + &"+1".repeat(29999) + " }}",
        "{{ 1".to_owned() + &"~a".repeat(29999) + " }}",
        "{{ 1".to_owned() + &"**1".repeat(19999) + " }}",
        "{{ 1".to_owned() + &" if a else 1".repeat(4999) + " }}",
        "{{ 1".to_owned() + &" if a".repeat(9999) + " }}",
        "{{ a".to_owned() + &" and a".repeat(9999) + " }}",
        "{{ a".to_owned() + &" is a".repeat(9999) + " }}",
        "{% if a %}".to_owned() + &"{% elif a %}".repeat(4999) + "{% endif %}",
        "{% generation %}".to_owned() + &"{%elif a%}".repeat(4999) + "{% endgeneration %}",
        "{% if a %}".repeat(4999),
        "{% for a in b %}".repeat(2999),
        "{% set a %}".repeat(2999),
        "{% macro a() %}".repeat(2999),
        "{% call a() %}".repeat(2999),
        "{% filter a %}".repeat(2999),
        "{{ 'x' * 30 }}".repeat(4000) + "{{ 9 * 9 * 9 * 9 * 9 * 9 * 'x' }}",
        "x".repeat((64 << 10) + 1),
    ];
    doubled.iter().map(|body| often(body)).chain(alone.map(Into::into)).chain(deep).collect()
}

/// Why: each of the above for one of these.
const REASONS: [&str; 25] = [
    "invalid_file: invalid file: chat template: engine ran out of fuel",
    "the template's values would take more than",
    "nested more than 100 levels",
    "holds data only",
    "constants are multiplied",
    "an expression or an if is too long",
    "maximum recursion limits",
    "recursion limit exceeded",
    "range has too many elements",
    "unable to calculate",
    "not divided by 0",
    "an empty text is everywhere",
    "loop.changed and loop.cycle",
    "unknown filter",
    "*arguments",
    "one file without blocks",
    "no do and no autoescape",
    "is unknown",
    "has no method",
    "repeated too often",
    "unknown keyword argument `caller`",
    "not callable",
    "must be placed inside a loop",
    "break and continue within",
    "at most 65536 are compiled",
];

/// What looks alike, and is fine.
const FINE: [&str; 15] = [
    "{{ '=' * 60 }}{{ '-' * messages[0].content | length }}",
    "{% set ns = namespace(l=[]) %}{% for i in range(3000) %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l | length }}",
    "{% set ns = namespace(a='') %}{% for i in range(3000) %}{% set ns.a = ns.a ~ messages[0].content %}{% endfor %}{{ ns.a | length }}",
    "{% for i in range(3000) %}{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}{% endfor %}",
    "{% macro f(a) %}{{ a | upper }}{% endmacro %}{% for i in range(9999) %}{{ f('abcdefgh') }}{% endfor %}",
    "{% for i in range(9999) %}{% set a %}{{ messages[0].content * 9 }}{% endset %}{{ a[0] }}{% endfor %}",
    "{% for i in range(9999) %}{% set a = (messages[0].content * 9).split(' ') %}{{ a[-1][:3] }}{% endfor %}",
    "{{ messages | tojson(indent=999999999) }}{{ (range(9999) | list)[::-2] | join(',') | length }}",
    "{% for a in [[1, [2, [3]]], [4]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}",
    "{% if 1 < 2 < 3 and not (3 < 2 < 1) and 'joke' in messages[0].content %}{{ messages[0].content[5:-3:2] }}{% endif %}",
    "{% set m = {'a': 1, 'b': [2]} %}{% for k, v in m.items() %}{{ k }}{{ v }}{% endfor %}{{ m.get('c', 3) }}{{ dict(m, c=4) | dictsort }}",
    "{% set a, ns = 1, namespace(b=2) %}{{ ns.b + a }}{{ 1.5 + 1 }}{{ true + true }}{{ 7 * 1024 * 1024 }}{{ 'a' + 'b' }}{{ [1] + [2] }}",
    "{% set ns = namespace(l=[]) %}{% for i in range(95) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}{{ ns.l | tojson(indent=1) | length }}\
     {{ ns.l == [ns.l] }}{{ {ns.l: 1} }}{{ [ns.l, ns.l] | sort | unique | list | length }}",
    "{% with b = 1 %}{% for i in range(9) %}{% with a = i %}{{ a }}{% endwith %}{% if i == b %}{% continue %}{% elif i > 3 %}{% break %}{% endif %}{% endfor %}{% endwith %}",
    "{% for r, group in [['a', [1]], ['b', [2]]] %}{{ loop.index }}{{ loop.previtem }}{{ loop.nextitem }}{{ r }}{% endfor %}",
];

/// On a stack of the size that wasm has.
#[test]
fn is_stopped_in_time_and_memory() {
    std::thread::Builder::new().stack_size(1 << 20).spawn(run_all).expect("a thread").join().expect("no panic");
}

fn run_all() {
    let (mut wrong, mut slowest, mut largest) = (Vec::new(), Duration::ZERO, 0);
    let sources = stopped();
    for (source, fine) in sources.iter().map(|source| (source.as_str(), false)).chain(FINE.map(|source| (source, true))) {
        let (rendered, mut took, peak) = render(source);
        // The machine may have been busy with something else.
        for _ in 0..2 {
            if took > MOST_TIME {
                took = took.min(render(source).1);
            }
        }
        let shown: String = source.chars().take(160).collect();
        if std::env::var_os("OPENWEIGHTS_VERBOSE").is_some() {
            let said: String = format!("{rendered:?}").chars().take(200).collect();
            println!("{took:>12.3?} {peak:>10} {shown}\n    {said}");
        }
        match &rendered {
            Ok(text) if !fine => wrong.push(format!("{shown}: gave {} bytes", text.len())),
            Err(error) if fine || !REASONS.iter().any(|reason| error.contains(reason)) => wrong.push(format!("{shown}: {error}")),
            _ => {}
        }
        if took > MOST_TIME || peak > MOST_MEMORY + 4 * source.len() {
            wrong.push(format!("{shown}: took {took:?} and {peak} bytes"));
        }
        (slowest, largest) = (slowest.max(took), largest.max(peak));
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!("{} stopped, {} fine; at most {slowest:?} and {largest} bytes", sources.len(), FINE.len());
    assert!(HEAP.current_usage() < 4 << 20, "{} bytes are not freed", HEAP.current_usage());
}
