//! What a template's tokens say before it is parsed: parser, compiler and their trees recurse, and constants are folded, so
//! expressions of any depth and products of any size must not get there.

use minijinja::{
    Error, ErrorKind,
    machinery::{Span, Token, WhitespaceConfig, tokenize},
    syntax::SyntaxConfig,
};

/// Tokens of an expression that may lie within one another, and branches of an `if`. (The parser has a limit of its own
/// for brackets and statements only.)
const MAX_DEPTH: usize = 400;
/// What all constants that are multiplied may come to, in bytes: `'=' * 60` is fine.
const MAX_PRODUCTS: u64 = 256 << 10;

/// Refuses a template whose parsing or compiling would take too much.
pub(super) fn check(source: &str) -> Result<(), Error> {
    let (mut tag, mut branches, mut products) = (Tag::default(), Vec::new(), 0u64);
    let mut first = false;
    for token in tokenize(source, false, SyntaxConfig, WhitespaceConfig::default()) {
        // What is no token, the parser refuses when it comes there.
        let Ok((token, span)) = token else { return Ok(()) };
        match (&token, first) {
            (Token::VariableStart | Token::BlockStart, _) => tag = Tag::new(span),
            (Token::VariableEnd | Token::BlockEnd, _) => products = products.saturating_add(tag.product(span)),
            (Token::Ident("do" | "autoescape"), true) => return Err(error("chat templates have no do and no autoescape", span)),
            (Token::Ident("if" | "for"), true) => branches.push(0),
            (Token::Ident("elif"), true) => branches.iter_mut().last().into_iter().for_each(|count| *count += 1),
            (Token::Ident("endif" | "endfor"), true) => {
                branches.pop();
            }
            _ => {}
        }
        first = matches!(token, Token::BlockStart);
        if tag.take(&token) > MAX_DEPTH || branches.len() > MAX_DEPTH || branches.iter().sum::<usize>() > MAX_DEPTH / 4 {
            return Err(error("an expression or an if is too long", span));
        }
        if products > MAX_PRODUCTS {
            return Err(error("constants are multiplied to more than a chat template has use for", span));
        }
    }
    Ok(())
}

fn error(what: &'static str, span: Span) -> Error {
    Error::new(ErrorKind::SyntaxError, format!("{what} (line {})", span.start_line))
}

/// What has been seen of an expression.
struct Tag {
    start: u32,
    /// Tokens at each level of brackets since the last comma.
    chains: Vec<usize>,
    multiplies: bool,
    texts: bool,
    /// Product of the numbers, each one larger than it is, so that no sum of them is larger.
    numbers: u64,
}

impl Default for Tag {
    fn default() -> Self {
        Self { start: 0, chains: vec![0], multiplies: false, texts: false, numbers: 1 }
    }
}

impl Tag {
    fn new(start: Span) -> Self {
        Self { start: start.end_offset, ..Self::default() }
    }

    /// An upper bound of the expression's depth.
    fn take(&mut self, token: &Token) -> usize {
        let top = self.chains.len() - 1;
        match token {
            Token::Comma => self.chains[top] = 0,
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => {
                self.chains[top] += 1;
                self.chains.push(0);
            }
            Token::BracketClose | Token::ParenClose | Token::BraceClose if top > 0 => {
                self.chains.pop();
            }
            _ => self.chains[top] += 1,
        }
        self.multiplies |= matches!(token, Token::Mul);
        self.texts |= matches!(token, Token::Str(_) | Token::String(_) | Token::BracketOpen);
        let number = match token {
            Token::Int(number) => number.saturating_add(1),
            Token::Int128(_) | Token::Float(_) | Token::Pow => u64::MAX,
            _ => 1,
        };
        self.numbers = self.numbers.saturating_mul(number);
        self.chains.iter().sum()
    }

    /// The most that the expression's constants come to.
    fn product(&self, end: Span) -> u64 {
        if self.multiplies && self.texts { self.numbers.saturating_mul(u64::from(end.start_offset.saturating_sub(self.start))) } else { 0 }
    }
}
