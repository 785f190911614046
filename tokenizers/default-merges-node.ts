// Node only: trains the default vocabulary and writes it to default-merges.ts, 120 columns wide.
import { renameSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { trainDefaultMerges } from './world-language.ts';

const lines = trainDefaultMerges()
  .join('  ')
  .replace(/(.{1,120})(?: {2}|$)/g, '$1\n');
const source = `/**
 * Merges of the default vocabulary in the order they were learned, in GPT-2's characters (\`Ġ\` is a space, \`Ċ\` a
 * line feed). Written by default-merges-node.ts from the language of the built-in world.
 */
export const defaultMerges: readonly string[] = \`
${lines}\`
  .trim()
  .split(/ {2}|\\n/);
`;
const path = fileURLToPath(new URL('./default-merges.ts', import.meta.url));
writeFileSync(`${path}.new`, source);
renameSync(`${path}.new`, path);
