import { type Device, ParameterSet, type Tensor } from '../../engine/index.ts';
import type { AttentionTable } from '../../kernels/index.ts';
import { backboneOf } from './backbones/index.ts';
import { BlockInputs } from './blocks.ts';
import { duplicate, expectRunnable, rankComplaint, refuse } from './check.ts';
import { blockNamed, type ModelConfiguration } from './configuration.ts';
import { initialise } from './initialise.ts';
import {
  adaptersOfLayers,
  keptOfLayers,
  type Layer,
  type ModelParameter,
  parametersOfLayers,
  Table,
} from './layers.ts';
import { Mixture } from './mixture.ts';
import { type Objective, objectivesOf } from './objectives/index.ts';
import { withPrecision } from './precision.ts';
import { groupsReached } from './reach.ts';
import { withRules } from './rules.ts';
import { crossTableOf, type RunningBlock, tableOf } from './sequence.ts';

/** The layers and objectives of a configuration, without values. */
export class Architecture {
  readonly blockInputs: BlockInputs;
  readonly mixture: Mixture;
  readonly objectives: readonly Objective[];
  /** In the order that decides the streams of initial values and the order of sums: a contract, like the names. */
  readonly parameters: readonly ModelParameter[];
  /** The matrix of logits, where it is not that of the token embeddings. */
  private readonly head: Table | null;
  private readonly tables = new Map<string, AttentionTable>();
  private stoppedExperts: readonly string[] | null = null;

  /** @throws InputError if a model of this configuration cannot run */
  constructor(readonly configuration: ModelConfiguration) {
    expectRunnable(configuration);
    const { experts, vocabulary, objectives, rules = [], precision = 'f32' } = configuration;
    const { tied, names } = backboneOf(configuration);
    this.blockInputs = new BlockInputs(configuration);
    this.mixture = new Mixture(configuration);
    this.objectives = objectivesOf(configuration);
    refuse(duplicate('objectives', this.objectives));
    this.head = tied ? null : new Table('backbone', names.head, [vocabulary, experts.backbone.width], 'embedding');
    const heads = this.objectives.flatMap(({ name, layers }) => {
      const auxiliary = objectives.find((own) => own.name === name)?.auxiliary ?? false;
      return parametersOfLayers(layers).map((parameter) => (auxiliary ? { ...parameter, auxiliary } : parameter));
    });
    const [, ...others] = Object.keys(experts);
    const body: Layer[] = [
      ...this.blockInputs.embeddings,
      ...this.mixture.layersOf('backbone'),
      ...(this.head ? [this.head] : []),
      ...others.flatMap((name) => this.mixture.layersOf(name)),
    ];
    const last = [...this.blockInputs.layers, ...this.objectives.flatMap(({ conditioning = [] }) => conditioning)];
    const all = [...parametersOfLayers(body), ...heads, ...parametersOfLayers(last)];
    const kept = this.keptByAdaptation();
    const adapters = Object.keys(experts).flatMap((name) => adaptersOfLayers(this.mixture.layersOf(name)));
    const { rank = 0 } = configuration.lora ?? {};
    const ofRank = rankComplaint(adapters, rank);
    refuse(ofRank && `lora has rank ${rank}, and ${ofRank}`);
    const adapted = [...all.map((own) => (kept.has(own.name) ? { ...own, frozen: true } : own)), ...adapters];
    this.parameters = withPrecision(withRules(adapted, rules), precision);
    refuse(duplicate('parameters', this.parameters));
    if (this.objectives.every((objective) => this.trainsNothing(objective)))
      refuse('all parameters that its objectives reach are frozen, so nothing would be trained');
  }

  /** Whether the gradient of an objective reaches frozen parameters alone. */
  trainsNothing({ blocks, reads = blocks }: Pick<Objective, 'blocks' | 'reads'>): boolean {
    const reached = groupsReached(this.configuration, reads);
    return this.parameters.every(({ group, frozen }) => frozen || !reached.has(group));
  }

  /** Names of the parameters that low-rank adaptation keeps as they are. */
  private keptByAdaptation(): ReadonlySet<string> {
    const { lora } = this.configuration;
    const layers = (lora?.experts ?? []).flatMap((expert) => [
      ...this.mixture.layersOf(expert),
      ...(expert === 'backbone' ? [this.blockInputs.tokens, ...(this.head ? [this.head] : [])] : []),
    ]);
    return new Set(keptOfLayers(layers).map(({ name }) => name));
  }

  /** Experts from whose rows a gradient reaches frozen parameters alone. */
  get stopped(): readonly string[] {
    const { blocks, experts } = this.configuration;
    this.stoppedExperts ??= Object.keys(experts).filter((name) =>
      this.trainsNothing({ blocks: blocks.filter(({ weights }) => weights === name).map((block) => block.name) }),
    );
    return this.stoppedExperts;
  }

  /** The attention table over the blocks of a pass, made once. No gradient passes into the keys of the experts in `stopped`. */
  table(blocks: readonly RunningBlock[], stopped: readonly string[] = []): AttentionTable {
    const { configuration } = this;
    const isStopped = (name: string) => stopped.includes(blockNamed(configuration, name).weights);
    const edges = configuration.edges.map((own) =>
      isStopped(own.key) ? { ...own, edge: { ...own.edge, keyGradient: 0, valueGradient: 0 } } : own,
    );
    return this.made([blocks], () => tableOf({ ...configuration, edges }, blocks), stopped);
  }

  /** The table over blocks that run, which have queries only, and the memory that they read; made once. */
  crossTable(running: readonly RunningBlock[], memory: readonly RunningBlock[]): AttentionTable {
    return this.made([running, memory], () => crossTableOf(this.configuration, running, memory));
  }

  private made(
    blocks: readonly (readonly RunningBlock[])[],
    make: () => AttentionTable,
    stopped: readonly string[] = [],
  ): AttentionTable {
    const key = JSON.stringify([...blocks.map((part) => part.map(({ tableName }) => tableName)), stopped]);
    const known = this.tables.get(key) ?? make();
    this.tables.set(key, known);
    return known;
  }

  /** The matrix [vocabulary, width] of the logits. */
  tokenHead(values: ParameterSet): Tensor {
    return (this.head ?? this.blockInputs.tokens).rows(values);
  }
}

/** A vision-language-action model: an architecture with the values of its parameters. */
export class Model implements Disposable {
  readonly architecture: Architecture;
  readonly parameters: ParameterSet;

  /**
   * With the `parameters` of another model, whose configuration has the same, both share their values and gradients: the other owns them.
   *
   * @throws InputError if a model of this configuration cannot run
   */
  constructor(
    readonly device: Device,
    readonly configuration: ModelConfiguration,
    parameters?: ParameterSet,
  ) {
    this.architecture = new Architecture(configuration);
    this.parameters = parameters ?? new ParameterSet(device, this.architecture.parameters);
  }

  get objectives(): readonly Objective[] {
    return this.architecture.objectives;
  }

  initialise(seed: number): void {
    initialise(this.parameters, this.architecture.parameters, seed, this.configuration.initialValues);
  }

  dispose(): void {
    this.parameters.dispose();
  }
  readonly [Symbol.dispose] = this.dispose;
}
