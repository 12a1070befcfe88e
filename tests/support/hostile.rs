//! Components that nobody should run, made here.

/// A component that exports a handler without functions, beside this WAT.
pub fn component(wat: &str) -> Vec<u8> {
    let handler = "(instance $h) (export \"hotbay:channel/handler@0.1.0\" (instance $h))";
    wat::parse_str(format!("(component {wat} {handler})")).expect("WAT")
}

/// A few hundred bytes that amount to 10^`depth` instances.
pub fn instances(depth: u32) -> Vec<u8> {
    let ten = |of: &str| format!("(instance (instantiate ${of}))").repeat(10);
    let mut wat = "(component $c1 (core module $m) ".to_owned() + &"(core instance (instantiate $m))".repeat(10) + ")";
    for level in 2..=depth {
        let below = format!("c{}", level - 1);
        let inner = format!("(alias outer 1 ${below} (component ${below})) {}", ten(&below));
        wat.extend([&format!("(component $c{level} "), &*inner, ")"]);
    }
    component(&format!("{wat} (instance (instantiate $c{depth}))"))
}

/// So many loops within each other, three bytes each.
pub fn loops(count: usize) -> Vec<u8> {
    component(&format!("(core module (func {} {}))", "loop ".repeat(count), "end ".repeat(count)))
}

/// A component of two memories that begin with so many pages of 64 KiB each.
pub fn memory(pages: u32) -> Vec<u8> {
    let module = format!("(core module $m (memory {pages}))");
    component(&format!("{module} (core instance (instantiate $m)) (core instance (instantiate $m))"))
}

/// A component with so many bytes more that nobody reads: a custom section (component model, binary format).
pub fn padded(component: &[u8], bytes: usize) -> Vec<u8> {
    let mut made = component.to_vec();
    section(&mut made, 0, &[&[1, b'x'], &*vec![0xA5; bytes]].concat());
    made
}

/// A good component whose start code runs this body first: instructions in binary, without the `end`.
pub fn with_start_code(component: &[u8], body: &[u8]) -> Vec<u8> {
    const CORE_MODULE: u8 = 1;
    let mut made = component[..8].to_vec();
    let mut is_main = true;
    for (id, content) in sections(&component[8..]) {
        let changed = (id == CORE_MODULE && std::mem::take(&mut is_main)).then(|| module_with_start(content, body));
        section(&mut made, id, &changed.unwrap_or_else(|| content.to_vec()));
    }
    made
}

const TYPE: u8 = 1;
const IMPORT: u8 = 2;
const FUNCTION: u8 = 3;
const START: u8 = 8;
const ELEMENT: u8 = 9;
const CODE: u8 = 10;
const DATA_COUNT: u8 = 12;

fn module_with_start(module: &[u8], body: &[u8]) -> Vec<u8> {
    let mut made = module[..8].to_vec();
    let (mut type_index, mut function_index, mut started) = (0, 0, false);
    for (id, content) in sections(&module[8..]) {
        let mut rest = content;
        match id {
            TYPE => type_index = number(&mut rest),
            IMPORT => function_index = imported_functions(content),
            FUNCTION => function_index += number(&mut rest),
            ELEMENT | DATA_COUNT | CODE if !std::mem::replace(&mut started, true) => {
                section(&mut made, START, &leb(function_index));
            }
            _ => {}
        }
        let function = [&[0], body, &[0x0B]].concat();
        let more = match id {
            TYPE => vec![0x60, 0, 0],
            FUNCTION => leb(type_index),
            CODE => [leb(function.len()), function].concat(),
            _ => {
                section(&mut made, id, content);
                continue;
            }
        };
        let mut rest = content;
        let count = number(&mut rest);
        section(&mut made, id, &[leb(count + 1), rest.to_vec(), more].concat());
    }
    made
}

fn imported_functions(mut rest: &[u8]) -> usize {
    let count = number(&mut rest);
    let mut functions = 0;
    for _ in 0..count {
        for _ in 0..2 {
            let name = number(&mut rest);
            rest = &rest[name..];
        }
        let kind = rest[0];
        rest = &rest[1..];
        match kind {
            0 => {
                number(&mut rest);
                functions += 1;
            }
            // A table has a type before its limits.
            1 | 2 => {
                rest = &rest[usize::from(kind == 1)..];
                let has_max = number(&mut rest) & 1 == 1;
                for _ in 0..=usize::from(has_max) {
                    number(&mut rest);
                }
            }
            3 => rest = &rest[2..],
            _ => panic!("an import of kind {kind}"),
        }
    }
    functions
}

fn sections(mut rest: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some((id, after)) = rest.split_first() {
        rest = after;
        let length = number(&mut rest);
        let (content, after) = rest.split_at(length);
        found.push((*id, content));
        rest = after;
    }
    found
}

fn section(made: &mut Vec<u8>, id: u8, content: &[u8]) {
    made.push(id);
    made.extend(leb(content.len()));
    made.extend_from_slice(content);
}

/// Reads a number (LEB128).
fn number(rest: &mut &[u8]) -> usize {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, after) = rest.split_first().expect("a number");
        *rest = after;
        number |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return number;
        }
    }
}

/// Writes one.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (number & 0x7F) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
