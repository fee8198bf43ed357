//! Just enough of Lua to see that two texts are one script: its words, without
//! comments and white space, strings in one kind of quotes, and the names of commands
//! in lower case, which Redis does not tell apart.
//!
//! Pitfall: what is only nearly the same must not become the same. So what is not
//! understood (long strings, comments with levels) stays as it is and is a word that
//! no known script has.

/// A text by its words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Normal {
    /// The words, each with a space behind it.
    pub(super) words: Vec<u8>,
    /// In which lines it calls commands, in the order of the text.
    pub(super) calls: Vec<usize>,
}

/// The words of a text.
pub(super) fn normal(text: &[u8]) -> Normal {
    let mut normal = Normal { words: Vec::with_capacity(text.len()), calls: Vec::new() };
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let length = length_of_token(&text[at..]);
        let token = &text[at..at + length];
        if !is_blank(token) {
            normal.push(token, line);
        }
        line += token.iter().filter(|&&byte| byte == b'\n').count();
        at += length;
    }
    normal
}

impl Normal {
    fn push(&mut self, token: &[u8], line: usize) {
        let follows = |ends: [&[u8]; 2]| ends.iter().any(|end| self.words.ends_with(end));
        let names_command = follows([b" redis . call ( ", b" redis . pcall ( "])
            || [&b"redis . call ( "[..], b"redis . pcall ( "].contains(&&self.words[..]);
        if names_command {
            self.calls.push(line);
        }
        match string_of(token) {
            Some(string) if names_command => self.quote(&string.to_ascii_lowercase()),
            Some(string) => self.quote(string),
            None => self.words.extend_from_slice(token),
        }
        self.words.push(b' ');
    }

    fn quote(&mut self, string: &[u8]) {
        self.words.push(b'"');
        self.words.extend_from_slice(string);
        self.words.push(b'"');
    }
}

/// What is between quotes, where it means the same in either kind of them.
fn string_of(token: &[u8]) -> Option<&[u8]> {
    let (first, rest) = token.split_first()?;
    let (last, string) = rest.split_last()?;
    let is_plain = !string.iter().any(|byte| matches!(byte, b'\\' | b'"' | b'\'' | b'\n'));
    (matches!(first, b'"' | b'\'') && first == last && is_plain).then_some(string)
}

fn is_blank(token: &[u8]) -> bool {
    token[0].is_ascii_whitespace()
        || (token.starts_with(b"--") && !token.starts_with(b"--["))
        || (token.starts_with(b"--[[") && token.ends_with(b"]]"))
}

/// How long the first token is, a comment or white space being one, too.
fn length_of_token(text: &[u8]) -> usize {
    let run = |is_in: fn(&u8) -> bool| text.iter().take_while(|byte| is_in(byte)).count();
    match text[0] {
        _ if text.starts_with(b"--[[") => until(text, b"]]"),
        // Whether it ends with the line depends on what follows.
        _ if text.starts_with(b"--[") => text.len(),
        // A carriage return ends a line, too.
        _ if text.starts_with(b"--") => run(|&byte| !matches!(byte, b'\n' | b'\r')),
        quote @ (b'"' | b'\'') => length_of_string(text, quote),
        byte if byte.is_ascii_whitespace() => run(u8::is_ascii_whitespace),
        byte if is_in_name(&byte) => run(is_in_name),
        byte if is_in_operator(&byte) => run(is_in_operator),
        _ => 1,
    }
}

fn is_in_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii()
}

fn is_in_operator(byte: &u8) -> bool {
    b"=~<>.".contains(byte)
}

fn until(text: &[u8], end: &[u8]) -> usize {
    let found = text.windows(end.len()).position(|window| window == end);
    found.map_or(text.len(), |at| at + end.len())
}

fn length_of_string(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        String::from_utf8(normal(text.as_bytes()).words).unwrap()
    }

    #[test]
    fn what_means_the_same_is_the_same() {
        let plain = words("return redis.call(\"get\",KEYS[1])");
        for same in [
            "return redis.call('get', KEYS[1])",
            "-- a comment\n\treturn  redis.call( 'GET' , KEYS [ 1 ] ) -- another",
            "--[[ a\nlong one ]] return redis.call(\"Get\",KEYS[1])\r\n",
        ] {
            assert_eq!(words(same), plain, "{same}");
        }
    }

    /// [A release that deletes whatever is there, taken for one that compares.]
    #[test]
    fn what_means_something_else_is_something_else() {
        let plain = words("if redis.call('get',KEYS[1]) == ARGV[1] then return 'a b' end");
        for other in [
            "if redis.call('get',KEYS[1]) = = ARGV[1] then return 'a b' end",
            "if redis.call('get',KEYS[1]) ~= ARGV[1] then return 'a b' end",
            "if redis.call('get',keys[1]) == ARGV[1] then return 'a b' end",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return 'a  b' end",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return 'A b' end",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return [[a b]] end",
            "if redis.call('get',KEYS[1]) == ARGV[11] then return 'a b' end",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return 'a b' --[=[\nend",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return 'a b' --[[\nend",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return 'a b' end --[[",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return 'a b' end --\rreturn",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return 'a b\\' end",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return 'a b'",
        ] {
            assert_ne!(words(other), plain, "{other}");
        }
        assert_ne!(words("returnredis"), words("return redis"));
        assert_ne!(words("'x\" \"y'"), words("\"x\" \"y\""));
    }

    #[test]
    fn calls_are_where_redis_says_they_are() {
        let text = b"redis.call('a')\n--[[\n]] local x = redis.pcall('b')\n\nredis.call('c')";
        assert_eq!(normal(text).calls, [1, 3, 5]);
        assert_eq!(normal(b"xredis.call('a')").calls, [0; 0]);
    }
}
