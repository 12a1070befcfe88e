// Text as bytes, and back: QuickJS has no TextEncoder.

export function encode(text) {
  const bytes = [];
  for (const character of text.toWellFormed()) {
    const code = character.codePointAt(0);
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), tail(code, 0));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), tail(code, 6), tail(code, 0));
    else bytes.push(0xf0 | (code >> 18), tail(code, 12), tail(code, 6), tail(code, 0));
  }
  return Uint8Array.from(bytes);
}

const tail = (code, shift) => 0x80 | ((code >> shift) & 0x3f);

/// The text of UTF-8; throws a URIError if it is none.
export function decode(bytes) {
  let escaped = "";
  for (const byte of bytes) {
    const plain = byte >= 0x20 && byte < 0x7f && byte !== 0x25;
    escaped += plain ? String.fromCharCode(byte) : "%" + (0x100 + byte).toString(16).slice(1);
  }
  return decodeURIComponent(escaped);
}
