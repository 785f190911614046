import type { PicturePlace, Said } from '../../model/policy/subtask.ts';
import type { FilmedEpisode, Frame } from '../../model/report/film-strip.ts';
import { project } from './camera.ts';
import { ACTION_DIMENSION, type TabletopWorld, type WorldObservation } from './world.ts';

/** The end of an episode. */
type Ended = Omit<FilmedEpisode, 'about' | 'frames'>;

/** Records the episodes of an evaluation, with the picture at each call of the policy. */
export class Film {
  readonly #frames: (Frame & { went: PicturePlace[] })[][] = [];
  #said: readonly Said[] = [];

  /** For the policy: called with the subtask that it says about each observation before it acts. */
  readonly onSaid = (said: readonly Said[]): void => {
    this.#said = said;
  };

  /** The policy's answer to an observation of episode number `index`, before it is carried out. */
  call(index: number, step: number, world: TabletopWorld, { image }: WorldObservation, chunk: Float32Array): void {
    const [x, y, z, opening] = world.state();
    const actions = Array.from({ length: chunk.length / ACTION_DIMENSION }, (_, at) =>
      chunk.subarray(at * ACTION_DIMENSION),
    );
    const spots = [world.state(), ...actions].map(([x, y, z]) => project([x, y, z], world.scene.look.camera));
    const centimetres = (metres: number) => String(Math.round(100 * metres)).replace('-', '−');
    const gripper = `gripper at x ${centimetres(x)}, y ${centimetres(y)}, z ${centimetres(z)} cm, open ${centimetres(opening)} cm`;
    this.#frames[index] ??= [];
    this.#frames[index].push({ step, image, said: this.#said[index], gripper, predicted: spots, went: [spots[0]] });
  }

  /** The gripper of episode number `index` has moved by a control step. */
  moved(index: number, world: TabletopWorld): void {
    const [x, y, z] = world.state();
    this.#frames[index].at(-1)!.went.push(project([x, y, z], world.scene.look.camera));
  }

  /** The first episodes that succeeded, and the first that failed: at most `each` of both, in their order. */
  episodes(ended: readonly Ended[], about?: string, each = 4): FilmedEpisode[] {
    const ofKind = (kind: boolean) => ended.filter(({ success }) => success === kind).slice(0, each);
    const chosen = new Set([...ofKind(true), ...ofKind(false)]);
    return ended.flatMap((episode, index) => {
      if (!chosen.has(episode)) return [];
      const { instruction, success, outcome, steps, end } = episode;
      return [{ about, instruction, success, outcome, steps, frames: this.#frames[index], end }];
    });
  }
}
