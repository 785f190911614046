import type { Recording } from '../../tabletop/episode-recorder.ts';
import type { WorldObservation } from '../../tabletop/world.ts';
import { connect } from './calls.ts';
import type { Acted, ActedStep, PageCalls, WorldCalls } from './world-worker.ts';

/** A policy that acts in the world, and who watches. */
interface Actor {
  chunks(observations: readonly WorldObservation[]): Promise<readonly Float32Array[]>;
  seen(step: ActedStep): void;
}

/** The thread of the tabletop world, with the demonstrations that it has made of each seed. */
export class World {
  private readonly worker = new Worker(new URL('./world-worker.ts', import.meta.url), { type: 'module' });
  private readonly attempts = new Map<number, Promise<Recording | null>[]>();
  private readonly actors: Actor[] = [];
  private readonly call = connect<WorldCalls>(this.worker, {
    chunks: (actor, observations) => this.actors[actor].chunks(observations),
    seen: (actor, step) => this.actors[actor].seen(step),
  } satisfies PageCalls);

  /** The first `count` successful demonstrations of a seed's scenes. */
  async demonstrations(seed: number, count: number, onMade?: (made: number) => void): Promise<Recording[]> {
    const attempts = this.attempts.get(seed) ?? [];
    this.attempts.set(seed, attempts);
    const made: Recording[] = [];
    for (let index = 0; made.length < count; index++) {
      attempts[index] ??= this.call('demonstrate', seed, index);
      const own = await attempts[index];
      if (!own) continue;
      made.push(own);
      onMade?.(made.length);
    }
    return made;
  }

  act(actor: Actor, episodes: number, seed: number): Promise<Acted> {
    return this.call('act', this.actors.push(actor) - 1, episodes, seed);
  }

  end(): void {
    this.worker.terminate();
  }
}
