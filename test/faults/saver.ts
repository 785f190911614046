/** Saves as fast as it can until it is killed: node saver.ts SOURCE PATH FIRST. Prints each step when it is saved. */
import { savingRun } from './saving.ts';

const [source, path, first] = process.argv.slice(2);
const save = await savingRun(source, path);
for (let step = Number(first); ; step++) {
  await save(step);
  process.stdout.write(`${step}\n`);
}
