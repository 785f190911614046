// Node only: trains the default vocabulary and writes it to default-merges.ts.
import { renameSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { trainDefaultMerges } from './language.ts';

const WIDTH = 120;
const lines = [''];
for (const merge of trainDefaultMerges()) {
  const line = lines[lines.length - 1];
  if (line === '') lines[lines.length - 1] = merge;
  else if (line.length + 2 + merge.length <= WIDTH) lines[lines.length - 1] += `  ${merge}`;
  else lines.push(merge);
}
const source = `/**
 * Merges of the default vocabulary in the order they were learned, in GPT-2's characters (\`Ġ\` is a space, \`Ċ\` a line feed).
 * Written by write-default-merges.ts from the language of the built-in world.
 */
export const defaultMerges: readonly string[] = \`
${lines.join('\n')}
\`
  .trim()
  .split(/ {2}|\\n/);
`;
const path = fileURLToPath(new URL('./default-merges.ts', import.meta.url));
writeFileSync(`${path}.new`, source);
renameSync(`${path}.new`, path);
