/** A process that takes and leaves the folders of runs, and begins files, at its parent's word. */
import { runFolder } from '../../cli/run-folder.ts';
import { writeFileSafely } from '../../engine/files/files.ts';

export type Wish = { take: string; at: number } | { write: string } | 'leave';
/** `path` of the folder that is held, or why it is not; or that a file was begun. */
export type Answer = { path: string } | { refused: string } | 'left' | 'writing';

const answer = (own: Answer) => process.send!(own);
const held: { leave(): Promise<void> }[] = [];

async function* endless() {
  yield 'the beginning';
  answer('writing');
  await new Promise(() => {});
}

process.on('message', async (wish: Wish) => {
  if (wish === 'leave') {
    for (const folder of held.splice(0)) await folder.leave();
    answer('left');
  } else if ('write' in wish) await writeFileSafely(wish.write, endless());
  else {
    while (Date.now() < wish.at); // all processes begin at the same instant
    await runFolder({ out: wish.take, usual: wish.take }, () => {}).then(
      (folder) => {
        held.push(folder);
        answer({ path: folder.path });
      },
      (error) => answer({ refused: error.message }),
    );
  }
});
