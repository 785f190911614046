import { recordEpisode } from '../../bench/tabletop/episode-recorder.ts';
import { episodeSeed, type SceneSettings, tasks } from '../../bench/tabletop/scene.ts';
import { TabletopWorld } from '../../bench/tabletop/world.ts';

/** The number of episodes of every task, simple and rich, that the hash covers. */
const EPISODES = 3;
const kinds: readonly SceneSettings[] = (['simple', 'rich'] as const).flatMap((variation) =>
  tasks.map((task) => ({ task, variation })),
);

/**
 * SHA-256 in hexadecimal of a few episodes under the disturbed demonstrator: every state, action and picture, and all joint
 * positions at the end to the last bit of their float64.
 */
export async function worldHash(): Promise<string> {
  const world = await TabletopWorld.create();
  try {
    const parts: Uint8Array[] = [];
    for (let index = 0; index < EPISODES * kinds.length; index++) {
      const settings = kinds[index % kinds.length];
      const recording = recordEpisode(world, episodeSeed('training', 0, index), 0.003, settings);
      if (recording === null)
        throw new Error(`the tabletop demonstrator failed in episode ${index} of the world's hash`);
      for (const numbers of [recording.states, recording.actions, world.positions()]) parts.push(littleEndian(numbers));
      parts.push(recording.images);
    }
    const bytes = new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
    return hexadecimal(await crypto.subtle.digest('SHA-256', bytes));
  } finally {
    world.delete();
  }
}

/** Bytes in hexadecimal, two digits each. */
function hexadecimal(bytes: ArrayBuffer): string {
  return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function littleEndian(numbers: Float32Array | Float64Array): Uint8Array {
  const width = numbers.BYTES_PER_ELEMENT;
  const view = new DataView(new ArrayBuffer(numbers.length * width));
  numbers.forEach((value, i) => {
    if (width === 4) view.setFloat32(i * 4, value, true);
    else view.setFloat64(i * 8, value, true);
  });
  return new Uint8Array(view.buffer);
}
