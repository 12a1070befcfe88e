// Bundles the script of each demo page into dist/, with all that it needs, and no source map. `--test` bundles the tests instead, into
// node_modules/.test, since Node.js runs no TypeScript of itself.

import { readdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const testing = process.argv.includes('--test');
const tests = (testing ? readdirSync(`${here}test`) : []).filter((name) => name.endsWith('.test.ts')).map((name) => `test/${name}`);

if (testing) rmSync(`${here}node_modules/.test`, { recursive: true, force: true });

const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: testing ? tests : ['metrics', 'widgets', 'events', 'drafts'].map((name) => `src/${name}.tsx`),
  outdir: testing ? 'node_modules/.test' : 'dist',
  outExtension: testing ? { '.js': '.mjs' } : {},
  bundle: true,
  format: 'esm',
  platform: testing ? 'node' : 'browser',
  target: testing ? 'node18' : 'es2022',
  minify: !testing,
  sourcemap: false,
  legalComments: 'none',
  charset: 'utf8',
  // The style of a library goes into its script and is adopted from there: the pages' policy allows one style sheet, the server serves one.
  loader: { '.css': 'text' },
  jsx: 'automatic',
  jsxImportSource: 'preact',
  metafile: true,
});

if (!testing) {
  for (const [file, { bytes }] of Object.entries(metafile.outputs)) console.log(`${file}  ${(bytes / 1024).toFixed(0)} KiB`);
}
