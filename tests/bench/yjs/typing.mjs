// Lets Yjs make the updates that the bench replays: `node typing.mjs FILE TYPERS UPDATES CHARACTERS PARAGRAPH`.
// Each of the typers writes texts of its own, so many characters at a time, a new one after PARAGRAPH characters (0: never), and sees
// nothing of the others.
//
// Writes to the file all updates of the first typer, then those of the next: 2 bytes for the length (little-endian), then the update.

import { writeFileSync } from "node:fs";
import * as Y from "yjs";

const [file, ...numbers] = process.argv.slice(2);
const [typers, updates, characters, paragraphLength] = numbers.map(Number);
const WORDS = "It is said that whoever writes together writes twice as long, and nobody knows who began. ";
/** Yjs takes a number at random. Here it is fixed, so that every run replays the same, and as long as most of those are. */
const FIRST_CLIENT = 3_141_592_653;

const records = [];
for (let typer = 0; typer < typers; typer += 1) {
  const doc = new Y.Doc();
  doc.clientID = FIRST_CLIENT + typer * 1_000_003;
  doc.on("update", (update) => records.push(Buffer.from([update.length & 0xff, update.length >> 8]), update));
  for (let typed = 0; typed < updates * characters; typed += characters) {
    const begin = typed % WORDS.length;
    const words = WORDS.repeat(Math.ceil((begin + characters) / WORDS.length)).slice(begin, begin + characters);
    const paragraph = doc.getText(`typer ${typer}, paragraph ${paragraphLength ? Math.floor(typed / paragraphLength) : 0}`);
    paragraph.insert(paragraph.length, words);
  }
}
writeFileSync(file, Buffer.concat(records));
