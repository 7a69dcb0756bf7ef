//! What stands for what in a value of main.cf or of an option: `$name`, `${name?{text}:{text}}`, `${{text} == {text}?…}`
//! (postconf(5)), as Postfix expands it (pure).
//!
//! `postconf -x` is asked where it can be. It is not told of options that may hold a login: what depends on one is expanded here.

use std::cmp::Ordering;

/// It has a form that is not known here, or names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CannotExpand;

/// How deep Postfix goes.
const DEEPEST: usize = 100;

/// A value with what its parameters stand for. `lookup`: what a parameter is set to, as written; a name that there is none of stands
/// for nothing.
pub(super) fn expand<'a>(value: &str, lookup: &dyn Fn(&str) -> Option<&'a str>) -> Result<String, CannotExpand> {
    let mut result = String::new();
    add(&mut result, value, lookup, 0)?;
    Ok(result)
}

fn add<'a>(
    result: &mut String,
    value: &str,
    lookup: &dyn Fn(&str) -> Option<&'a str>,
    depth: usize,
) -> Result<(), CannotExpand> {
    if depth > DEEPEST {
        return Err(CannotExpand);
    }
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('$') {
        *result += before;
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let expression;
        (expression, rest) = match after.chars().next() {
            Some('{') => enclosed(after, '{', '}')?,
            Some('(') => enclosed(after, '(', ')')?,
            _ => after.split_at(name_len(after)),
        };
        if !expression.is_empty() {
            add_expression(result, expression, lookup, depth + 1)?;
        }
    }
    *result += rest;
    Ok(())
}

/// `name`, `name?…`, `name:…`, `{…} == {…}?…`.
fn add_expression<'a>(
    result: &mut String,
    expression: &str,
    lookup: &dyn Fn(&str) -> Option<&'a str>,
    depth: usize,
) -> Result<(), CannotExpand> {
    let expression = expression.trim_start();
    let (is_so, found, rest) = if expression.starts_with('{') {
        let (is_so, rest) = compared(expression, lookup, depth)?;
        (is_so, None, rest)
    } else {
        let (name, rest) = expression.split_at(name_len(expression));
        let found = lookup(name).filter(|found| !found.is_empty());
        (found.is_some(), found, rest.trim_start())
    };
    let (if_so, if_not) = match (rest.chars().next(), rest.get(1..).unwrap_or_default()) {
        (None, _) => return found.map_or(Ok(()), |found| add(result, found, lookup, depth)),
        (Some(':'), rest) => ("", operand(rest)?),
        (Some('?'), rest) => match rest.trim_start().starts_with('{') {
            false => (rest, ""),
            true => {
                let (if_so, rest) = enclosed(rest.trim_start(), '{', '}')?;
                match rest.trim_start() {
                    "" => (if_so, ""),
                    rest => (if_so, operand(rest.strip_prefix(':').ok_or(CannotExpand)?)?),
                }
            }
        },
        _ => return Err(CannotExpand),
    };
    add(result, if is_so { if_so } else { if_not }, lookup, depth)
}

/// The last text of an expression, in braces or not.
fn operand(text: &str) -> Result<&str, CannotExpand> {
    if !text.trim_start().starts_with('{') {
        return Ok(text);
    }
    let (inner, rest) = enclosed(text.trim_start(), '{', '}')?;
    if rest.trim_start().is_empty() { Ok(inner) } else { Err(CannotExpand) }
}

/// Is `{…} == {…}` so, and what stands behind it?
fn compared<'e, 'a>(
    expression: &'e str,
    lookup: &dyn Fn(&str) -> Option<&'a str>,
    depth: usize,
) -> Result<(bool, &'e str), CannotExpand> {
    let expanded = |text: &str| -> Result<String, CannotExpand> {
        let mut result = String::new();
        add(&mut result, text, lookup, depth)?;
        Ok(result)
    };
    let (left, rest) = enclosed(expression, '{', '}')?;
    let rest = rest.trim_start();
    let operator = &rest[..rest.find(|c: char| c.is_whitespace() || c == '{').unwrap_or(rest.len())];
    let of_levels = operator.strip_suffix("level");
    let is_it: fn(Ordering) -> bool = match of_levels.unwrap_or(operator) {
        "==" => Ordering::is_eq,
        "!=" => Ordering::is_ne,
        "<" => Ordering::is_lt,
        "<=" => Ordering::is_le,
        ">" => Ordering::is_gt,
        ">=" => Ordering::is_ge,
        _ => return Err(CannotExpand),
    };
    let right = rest[operator.len()..].trim_start();
    let (right, rest) = if right.starts_with('{') { enclosed(right, '{', '}')? } else { return Err(CannotExpand) };
    let (left, right) = (expanded(left)?, expanded(right)?);
    if of_levels.is_some() {
        let order = level(&left).zip(level(&right)).map(|(left, right)| left.cmp(&right));
        return Ok((is_it(order.ok_or(CannotExpand)?), rest.trim_start()));
    }
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let order = match (number(&left), number(&right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => left.cmp(&right),
    };
    Ok((is_it(order), rest.trim_start()))
}

/// A level of `compatibility_level`: up to three numbers.
fn level(text: &str) -> Option<[u32; 3]> {
    let mut level = [0; 3];
    for (at, number) in text.trim().split('.').enumerate() {
        *level.get_mut(at)? = number.parse().ok()?;
    }
    Some(level)
}

/// What stands between a bracket, which the text begins with, and its partner; and what comes after.
fn enclosed(text: &str, open: char, close: char) -> Result<(&str, &str), CannotExpand> {
    let mut level = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            level += 1;
        } else if c == close {
            level -= 1;
            if level == 0 {
                return Ok((&text[1..at], &text[at + 1..]));
            }
        }
    }
    Err(CannotExpand)
}

fn name_len(text: &str) -> usize {
    text.bytes().position(|b| !b.is_ascii_alphanumeric() && b != b'_').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_postfix_expands_it() {
        let lookup = |name: &str| match name {
            "account" => Some("team:bulk"),
            "a" => Some("$account/x"),
            "empty" => Some(""),
            "itself" => Some("x$itself"),
            "nine" => Some("9"),
            "level" => Some("3.6"),
            _ => None,
        };
        for (value, expected) in [
            ("hash:/e/sasl", Some("hash:/e/sasl")),
            ("$a, ${a} $(a)z", Some("team:bulk/x, team:bulk/x team:bulk/xz")),
            ("$$a $none-$empty.", Some("$a -.")),
            ("${account?yes}${empty?no}${none?no}", Some("yes")),
            ("${account:no}${empty:yes}${none:{yes}}", Some("yesyes")),
            ("${account ?{$a}:{no}} ${empty ? {no}}${ account}", Some("team:bulk/x team:bulk")),
            ("${account more}", None),
            ("${account?{$a}:{no}} ${empty?{no} : {y}}", Some("team:bulk/x y")),
            ("/${{$account} == {team:bulk} ? {b} : {m}}", Some("/b")),
            ("/${{$account} != {team:bulk} ? {b} : {m}}", Some("/m")),
            ("/${{$account}=={team:x}?{b}}/", Some("//")),
            ("${{$nine}<{10}?{less}}${{09} == {9}?{same}}${{x}<{b}?{no}:{more}}", Some("lesssamemore")),
            ("${{$level} <level {3.10} ? {yes} : {no}}${{$level} >=level {3.6.0}?{yes}}", Some("yesyes")),
            ("${{$level} <level {many} ? {yes} : {no}}", None),
            ("${{$level} <more {1} ? {yes} : {no}}", None),
            ("${{a} == {b} ? {c} garbage}", None),
            ("${account?{b} c}", None),
            ("${account", None),
            ("$itself", None),
            ("5$", Some("5")),
        ] {
            assert_eq!(expand(value, &lookup).ok().as_deref(), expected, "{value}");
        }
    }
}
