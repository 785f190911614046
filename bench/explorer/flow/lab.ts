/** The training of one system, or of two side by side, in the page: the world, the runs, and what is measured on the way. */
import type { Device } from '../../../engine/index.ts';
import type { Recording } from '../../tabletop/episode-recorder.ts';
import { tabletopPolicy } from '../../tabletop/policy.ts';
import { recordedDataset, toEpisode } from '../../tabletop/recorded-dataset.ts';
import { RATE, type WorldObservation } from '../../tabletop/world.ts';
import type { Adapter } from '../device.ts';
import { placeOf } from '../link.ts';
import { type EdgeFactors, type LiveAttention, type LiveGradients, LiveRun, type LiveSettings } from './live-run.ts';
import type { World } from './world.ts';
import type { Acted, ActedStep } from './world-worker.ts';

export interface LabSettings extends Omit<LiveSettings, 'system'> {
  readonly systems: readonly string[];
  /** Demonstrations before the first step. With each step goes one more, up to `MOST`; they are added every `ADDED` steps. */
  readonly demonstrations: number;
}

/** What may change while training goes on. */
export interface Watching {
  /** By side. */
  readonly edges: readonly EdgeFactors[];
  /** Steps from one measurement of gradients to the next; 0 for none. */
  readonly every: number;
  /** Whether the policy acts in an episode after each measurement. */
  readonly acts: boolean;
  /** The seed of the scenes in which it acts. */
  readonly scene: number;
}

export interface Side {
  run: LiveRun | null;
  gradients: LiveGradients | null;
  attention: LiveAttention | null;
  /** The control step that is shown, of an episode in which the policy acts. */
  shown: ActedStep | null;
  acted: Acted | null;
  edges: EdgeFactors;
  /** Where edges were changed last: the step, and the time that capturing took. */
  changed: { readonly step: number; readonly milliseconds: number } | null;
}

/** Demonstrations that are made at most; `insula train` makes as many. */
const MOST = 400;
const ADDED = 10;

export class Lab {
  readonly sides: readonly Side[];
  running = false;
  acting = false;
  /** The work that takes its time now; null while steps go on or nothing does. */
  status: string | null = null;
  problem: string | null = null;
  /** Demonstrations that are trained on. */
  demonstrations = 0;
  /** Seconds of each step of all sides. */
  readonly seconds: number[] = [];
  private ended = false;
  private preparing: Promise<void> | null = null;
  /** The demonstrations so far, while more are made. */
  private made: Promise<Recording[]> | null = null;
  private readonly films: ActedStep[][];
  private player: ReturnType<typeof setInterval> | undefined;

  constructor(
    private readonly adapter: Adapter,
    private readonly world: World,
    private readonly settings: LabSettings,
    public watching: Watching,
    private readonly onChange: () => void,
  ) {
    this.sides = settings.systems.map(() => ({
      ...{ run: null, gradients: null, attention: null, shown: null, acted: null, edges: {}, changed: null },
    }));
    this.films = this.sides.map(() => []);
  }

  /** Training steps done. */
  get done(): number {
    return this.sides[0].run?.done ?? 0;
  }

  /** Trains on until it is paused, by `steps` at the most. */
  async train(steps = Number.POSITIVE_INFINITY): Promise<void> {
    if (this.running) return;
    this.running = true;
    await this.tell(async () => {
      for (let left = steps; left > 0 && (await this.goesOn()); left--) {
        await this.useEdges();
        await this.step();
      }
    });
    this.pause();
  }

  pause(): void {
    this.running = false;
    this.changed();
  }

  /** Measures the gradients of all sides, with the reason of every zero if asked for. */
  measure(reasons = false): Promise<void> {
    return this.tell(async () => {
      for (const [index, { run }] of this.sides.entries()) {
        this.say(`gradients of ${this.settings.systems[index]} are measured`);
        this.sides[index].gradients = await this.turn(() => run!.gradients(reasons));
      }
    });
  }

  /** Reads where the rows look. */
  look(): Promise<void> {
    return this.tell(async () => {
      this.say('attention is read');
      for (const side of this.sides) side.attention = await this.turn(() => side.run!.attention());
    });
  }

  /** Has the policies act in so many scenes, the first of which is shown. */
  async act(episodes: number): Promise<void> {
    if (this.acting) return;
    this.acting = true;
    await this.tell(async () => {
      const acted = this.sides.map(async (side, index) => {
        const policy = tabletopPolicy(side.run!.policy, this.settings.seed);
        const actor = {
          chunks: (observations: readonly WorldObservation[]) => this.turn(() => policy(observations, [])),
          seen: (step: ActedStep) => this.show(index, step),
        };
        const own = await this.world.act(actor, episodes, this.watching.scene);
        side.acted = own;
        this.show(index, own.last);
      });
      await Promise.all(acted);
    });
    this.acting = false;
    this.changed();
  }

  end(): void {
    this.running = false;
    this.ended = true;
    clearInterval(this.player);
    const dispose = () => {
      for (const { run } of this.sides) run?.dispose();
    };
    this.adapter.turn(dispose).catch(() => {}); // the adapter may be lost, and its memory with it
  }

  /** Whether to train on. Training rests while another section is shown, which has the adapter then. */
  private async goesOn(): Promise<boolean> {
    while (this.running && placeOf(location.hash).section !== 'flow')
      await new Promise((done) => addEventListener('hashchange', done, { once: true }));
    return this.running;
  }

  private async step(): Promise<void> {
    const start = performance.now();
    for (const { run } of this.sides) await this.turn(() => run!.step());
    this.seconds.push((performance.now() - start) / 1000);
    this.changed();
    await this.grow();
    const { every, acts } = this.watching;
    // The first map is there early, however slow the adapter.
    if (every === 0 || (this.done > 1 && this.done % every > 0)) return;
    await this.measure();
    if (this.sides.some(({ attention }) => attention)) await this.look();
    if (acts) this.act(1);
  }

  /** Has the runs go on with the edges that are set. */
  private async useEdges(): Promise<void> {
    for (const [index, side] of this.sides.entries()) {
      const edges = this.watching.edges[index];
      if (JSON.stringify(edges) === JSON.stringify(side.edges)) continue;
      side.edges = edges;
      this.say('the step is captured anew');
      const start = performance.now();
      await this.turn(() => side.run!.useEdges(edges));
      side.changed = { step: side.run!.done, milliseconds: performance.now() - start };
      this.say(null);
    }
  }

  /** Adds demonstrations that were made meanwhile, and has more made. All sides get them after the same step. */
  private async grow(): Promise<void> {
    if (this.done % ADDED > 0 || this.demonstrations >= MOST) return;
    const made = (await this.made) ?? [];
    const added = made.slice(this.demonstrations).map(toEpisode);
    for (const { run } of this.sides) run!.add(added);
    this.demonstrations = Math.max(made.length, this.demonstrations);
    this.made = this.world.demonstrations(this.settings.seed, Math.min(MOST, this.demonstrations + ADDED));
    this.made.catch(() => {}); // the next call of this function fails with it
  }

  /** Makes the first demonstrations and begins the runs. */
  private async prepare(): Promise<void> {
    const { systems, demonstrations, ...settings } = this.settings;
    const recordings = await this.world.demonstrations(settings.seed, demonstrations, (made) =>
      this.say(`demonstrations: ${made} of ${demonstrations}`),
    );
    for (const [index, system] of systems.entries()) {
      const side = this.sides[index];
      this.say(`${system}: its model is made`);
      side.edges = this.watching.edges[index];
      await this.turn(async (device) => {
        side.run ??= await LiveRun.begin(
          device,
          { ...settings, system },
          recordedDataset(recordings),
          (_, done, total) => this.say(`${system}: kernel ${done} of ${total} is compiled`),
        );
        await side.run.useEdges(side.edges);
      });
    }
    this.demonstrations = recordings.length;
    this.say(null);
  }

  private turn<T>(work: (device: Device) => T | Promise<T>): Promise<T> {
    return this.adapter.turn((device) => {
      if (this.ended) throw new Error('the training was ended');
      return work(device);
    });
  }

  /** Work on runs that have begun. Its failure is told. */
  private async tell(work: () => Promise<void>): Promise<void> {
    this.problem = null;
    try {
      this.preparing ??= this.prepare().catch((error) => {
        this.preparing = null;
        throw error;
      });
      await this.preparing;
      await this.useEdges();
      await work();
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
      this.running = false;
    } finally {
      this.say(null);
    }
  }

  private say(status: string | null): void {
    this.status = status;
    this.changed();
  }

  private changed(): void {
    if (!this.ended) this.onChange();
  }

  /** Shows control steps at the pace of the world, however fast they come. */
  private show(index: number, step: ActedStep): void {
    this.films[index].push(step);
    this.player ??= setInterval(() => {
      for (const [side, film] of this.films.entries()) this.sides[side].shown = film.shift() ?? this.sides[side].shown;
      this.changed();
      if (this.films.some((film) => film.length > 0)) return;
      clearInterval(this.player);
      this.player = undefined;
    }, 1000 / RATE);
  }
}
