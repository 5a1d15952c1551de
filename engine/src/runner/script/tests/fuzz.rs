//! Whatever is typed, nothing panics. A failure prints its input, which proptest has made as small as it can.

use proptest::prelude::*;

use super::super::source::SourceMap;
use super::*;

/// Pieces that cells are made of.
const PIECES: &[&str] = &[
    "a",
    "b",
    "f",
    "x",
    "1",
    "2.5",
    "-1",
    "0",
    "\"s\"",
    "`${a}`",
    "true",
    "()",
    "+",
    "-",
    "*",
    "/",
    "%",
    "**",
    "@",
    "==",
    "<",
    "&",
    "|",
    "||",
    "!",
    "=",
    "+=",
    "/=",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "#{",
    ":",
    ",",
    ";",
    ".",
    "..",
    "..=",
    "?",
    "=>",
    "let",
    "const",
    "if",
    "else",
    "for",
    "in",
    "fn",
    "f(x)",
    "|x|",
    "try",
    "catch",
    "switch",
    "return",
    "break",
    "\n",
    "// c\n",
    "arange(6)",
    "zeros(2, 3)",
    "sum",
    "sum(a, 0)",
    "reshape(a, 2, -1)",
    "a[0]",
    "a[[0, 1]]",
    "a[1..3]",
    "a[a > 1]",
    "concat",
    "psum(a)",
    "bcast(a)",
    "scatter([1, 2])",
    "array([[1], [2]])",
    "complex(1, 2)",
    "I",
    "slice(0, 5, 2)",
    "é",
    "\t",
    "this",
    "print",
    "debug(a)",
    "del(\"a\")",
    "has(\"a\")",
    "type_of(a)",
    "u8(a)",
    "9223372036854775807",
    "1e308",
    "inv(eye(2))",
    "T",
];

/// Starts of cells that make the pieces mean something.
const SETUP: &str = "a = arange(6); b = [1, [2], \"x\"]; f = |x| x; x = 2.5;";

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_cells_never_panic(pieces in prop::collection::vec(0..PIECES.len(), 0..14)) {
        let code: Vec<&str> = pieces.iter().map(|&at| PIECES[at]).collect();
        let code = code.join(" ");
        let mut prompt = Prompt::new();
        prompt.shows(SETUP);
        // A random `loop` or `while` would not end by itself; none of the pieces makes one.
        let _ = prompt.run(&code);
        prompt.shows("1");
        let _ = prompt.script.is_complete(&code);
        let _ = prompt.script.complete(&code, code.len() / 2);
    }

    #[test]
    fn random_text_never_panics(code in "[ -~éß\\n\\t]{0,60}") {
        let _ = Prompt::new().run(&code);
    }

    #[test]
    fn random_indices_never_panic(
        rows in 0_i64..4, columns in 0_i64..4,
        start in -6_i64..6, stop in -6_i64..6, step in -3_i64..4, at in any::<i64>(),
    ) {
        let mut prompt = Prompt::new();
        prompt.shows(&format!("m = arange({}).reshape({rows}, {columns}); v = arange({rows})", rows * columns));
        for index in [
            format!("v[slice({start}, {stop}, {step})]"), format!("v[{start}..{stop}]"), format!("v[{start}..={stop}]"),
            format!("v[{at}]"), format!("m[[{start}, {stop}]]"), format!("m[[{start}..{stop}, slice((), {stop}, {step})]]"),
            format!("m[array([{start}, {stop}])]"), format!("m[m > {start}]"), format!("v[{at}..{stop}]"),
        ] {
            let _ = prompt.run(&index);
            let _ = prompt.run(&format!("{index} = 1"));
            let _ = prompt.run(&format!("{index} = [1, 2]"));
        }
    }

    #[test]
    fn slices_agree_with_a_plain_loop(extent in 0_i64..8, start in -10_i64..10, stop in -10_i64..10, step in 1_i64..4) {
        let clamp = |bound: i64| (if bound < 0 { bound + extent } else { bound }).clamp(0, extent);
        let expected: Vec<i64> = (clamp(start)..clamp(stop)).step_by(step as usize).collect();
        let found = shown(&format!("list(arange({extent})[slice({start}, {stop}, {step})])"));
        prop_assert_eq!(found, format!("{:?}", expected));
    }

    #[test]
    fn arithmetic_of_extreme_integers_is_an_error_or_exact(x in any::<i64>(), y in any::<i64>()) {
        for (op, exact) in [("+", x.checked_add(y)), ("-", x.checked_sub(y)), ("*", x.checked_mul(y))] {
            for code in [format!("x {op} y"), format!("list(array([x]) {op} array([y]))[0]")] {
                let mut prompt = Prompt::new();
                prompt.script.push("x", x.into()).expect("a name");
                prompt.script.push("y", y.into()).expect("a name");
                match (prompt.run(&code), exact) {
                    (Ok(found), Some(exact)) => prop_assert_eq!(found, exact.to_string()),
                    (Err(error), None) => prop_assert_eq!(error.ename, "OverflowError"),
                    (found, exact) => prop_assert!(false, "{code}: {found:?}, {exact:?}"),
                }
            }
        }
    }

    #[test]
    fn columns_are_never_lost(line in 1_usize..3, column in 0_usize..200) {
        prop_assert!(SourceMap::default().column(line, column) >= 1);
    }
}
