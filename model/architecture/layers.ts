/** Small layers: each states its parameters, and runs with their values. A parameter's name is written once. */
import type { FloatType, ParameterSet, ParameterSpecification, Shape, Tensor } from '../../engine/index.ts';
import {
  adaptiveRmsNorm,
  gatedResidual,
  type LinearOptions,
  type LowRank,
  layerNorm,
  linear,
  lowRank,
  reshape,
  rmsNorm,
} from '../../kernels/index.ts';
import type { Backbone } from './backbones/index.ts';

/** The distribution of a parameter's initial values; see initialise.ts. */
export type Initialisation = 'zero' | 'one' | 'embedding' | 'position' | 'matrix' | 'standard';

export interface ModelParameter extends ParameterSpecification {
  readonly initialisation: Initialisation;
  /** Initial value of the last third of a bias of modulation: the gates. */
  readonly gateBias?: number;
  /** The head of an objective that acting does not need; an exported model is without it. */
  readonly auxiliary?: boolean;
  /** One of the thin matrices of low-rank adaptation. They are f32 whatever the precision of the model. */
  readonly adapter?: boolean;
}

/** Anything with parameters. */
export interface Layer {
  /** In the order of the model's parameters, which decides the streams of their initial values. */
  readonly parameters: readonly ModelParameter[];
  /** The parameters of its low-rank adaptation, which come after all others of the model. */
  readonly adapters?: readonly ModelParameter[];
  /** The parameters that low-rank adaptation of its expert keeps as they are; default: all. */
  readonly kept?: readonly ModelParameter[];
}

/** The parameters of layers in order. */
export const parametersOfLayers = (layers: readonly Layer[]): ModelParameter[] =>
  layers.flatMap(({ parameters }) => parameters);

export const adaptersOfLayers = (layers: readonly Layer[]): ModelParameter[] =>
  layers.flatMap(({ adapters = [] }) => adapters);

export const keptOfLayers = (layers: readonly Layer[]): ModelParameter[] =>
  layers.flatMap(({ parameters, kept = parameters }) => kept);

/** The epsilon of torch.nn.LayerNorm. */
export const TORCH_EPSILON = 1e-5;

/** The largest head dimension that attention takes. */
export const HEAD_DIMENSION_LIMIT = 256;

export const isHeadDimension = (dimension: number): boolean =>
  dimension > 0 && dimension % 4 === 0 && dimension <= HEAD_DIMENSION_LIMIT;

interface Sizes {
  readonly outputs: number;
  readonly inputs: number;
}

/** The low-rank adaptation of a matrix; see kernels/low-rank.ts. */
export interface LowRankSettings {
  readonly rank: number;
  readonly scale: number;
}

/** The names of PEFT for the thin matrices A and B beside a matrix. */
const thinName = (name: string, own: 'A' | 'B') => `${name}.lora_${own}.weight`;

/** The names of the adapted matrix and of B, given that of A; null for any other name. */
export function lowRankParts(name: string): { readonly matrix: string; readonly up: string } | null {
  const own = /^(.*)\.lora_A\.weight$/.exec(name)?.[1];
  return own === undefined ? null : { matrix: `${own}.weight`, up: thinName(own, 'B') };
}

interface LinearSettings {
  readonly bias?: boolean;
  readonly initialisation?: Initialisation;
  readonly adapter?: LowRankSettings | null;
}

/** A matrix [outputs, inputs] and a bias, or the matrix alone; with an adapter, whose product begins at 0, beside it. */
export class Linear implements Layer {
  readonly parameters: readonly ModelParameter[];
  readonly adapters: readonly ModelParameter[];
  private readonly names: { readonly weight: string; readonly bias: string | null };
  private readonly adapter: LowRankSettings | null;

  constructor(
    group: string,
    name: string,
    { outputs, inputs }: Sizes,
    { bias = true, initialisation = 'matrix', adapter = null }: LinearSettings = {},
  ) {
    this.adapter = adapter;
    const thin = (own: 'A' | 'B', shape: Shape, initialisation: Initialisation): ModelParameter => ({
      ...{ name: thinName(name, own), shape, group, initialisation, adapter: true },
    });
    this.adapters = adapter
      ? [thin('A', [adapter.rank, inputs], 'matrix'), thin('B', [outputs, adapter.rank], 'zero')]
      : [];
    this.names = { weight: `${name}.weight`, bias: bias ? `${name}.bias` : null };
    const matrix: ModelParameter = { name: this.names.weight, shape: [outputs, inputs], group, initialisation };
    this.parameters =
      this.names.bias === null
        ? [matrix]
        : [matrix, { name: this.names.bias, shape: [outputs], group, initialisation: 'zero' }];
  }

  /** The matrix without its adapter. */
  weight(values: ParameterSet): Tensor {
    return values.get(this.names.weight);
  }

  /** The thin matrices of the adapter; null without one. */
  lowRank(values: ParameterSet): LowRank | null {
    if (!this.adapter) return null;
    const [down, up] = this.adapters.map(({ name }) => values.get(name));
    return { down, up, scale: this.adapter.scale };
  }

  run(values: ParameterSet, x: Tensor, options: LinearOptions = {}): Tensor {
    const weight = this.weight(values);
    const bias = this.names.bias === null ? null : values.get(this.names.bias);
    const thin = this.lowRank(values);
    return thin ? lowRank(x, weight, thin, bias, options) : linear(x, weight, bias, options);
  }
}

export class LayerNorm implements Layer {
  readonly parameters: readonly ModelParameter[];

  constructor(
    group: string,
    name: string,
    width: number,
    private readonly epsilon?: number,
  ) {
    this.parameters = [
      { name: `${name}.weight`, shape: [width], group, initialisation: 'one' },
      { name: `${name}.bias`, shape: [width], group, initialisation: 'zero' },
    ];
  }

  run(values: ParameterSet, x: Tensor): Tensor {
    const [weight, bias] = this.parameters.map(({ name }) => values.get(name));
    return layerNorm(x, weight, bias, { epsilon: this.epsilon });
  }
}

/** A single tensor: learned rows, or a table of embeddings, which may be larger than a binding. */
export class Table implements Layer {
  readonly parameters: readonly ModelParameter[];

  constructor(group: string, name: string, shape: Shape, initialisation: Initialisation) {
    this.parameters = [
      { name: `${name}.weight`, shape, group, initialisation, splits: initialisation === 'embedding' },
    ];
  }

  rows(values: ParameterSet): Tensor {
    return values.get(this.parameters[0].name);
  }
}

/** A normed stream, and the way back: the branch that it feeds is added to the residual stream. */
interface Normed {
  readonly output: Tensor;
  /** The residual that the branch adds in its own last product; undefined if the branch is gated. */
  readonly residual: Tensor | undefined;
  /** Adds a branch that `residual` is not part of yet. */
  add(branch: Tensor): Tensor;
}

/**
 * RMSNorm of one expert, before a branch of its residual stream. An adaptive norm takes scale and shift from a condition, and gates
 * the branch (Peebles and Xie 2023, arXiv 2212.09748; openpi, gemma.py). Low-rank adaptation
 * trains its modulation whole, which begins at 0: kept, it would never let the condition in.
 */
export class Norm implements Layer {
  readonly parameters: readonly ModelParameter[];
  readonly kept: readonly ModelParameter[];
  private readonly modulation: Linear | null;
  private readonly gain: Table | null;

  constructor(
    group: string,
    name: string,
    width: number,
    private readonly family: Backbone['norm'],
    adaptive: boolean,
  ) {
    const start = family.gain === 'plain' ? 'one' : 'zero';
    this.gain = adaptive ? null : new Table(group, name, [width], start);
    this.modulation = adaptive
      ? new Linear(group, `${name}.dense`, { outputs: 3 * width, inputs: width }, { initialisation: 'zero' })
      : null;
    this.parameters = (this.gain ?? this.modulation!).parameters;
    this.kept = adaptive ? [] : this.parameters;
  }

  /**
   * x [batch, rows, width]; condition [batch, width], [batch * copies, width] where the rows are those of copies one after another, or
   * [batch * rows, width] for one for each row.
   */
  run(values: ParameterSet, x: Tensor, condition: Tensor | undefined): Normed {
    const { gain, epsilon } = this.family;
    if (!this.modulation || !condition)
      return {
        output: rmsNorm(x, this.gain!.rows(values), { gain, epsilon }),
        residual: x,
        add: (branch) => branch,
      };
    const modulation = this.modulation.run(values, condition, { dtype: x.dtype as FloatType });
    const [conditions] = modulation.shape;
    const [batch, rows, width] = x.shape;
    const split = (t: Tensor) =>
      conditions === batch ? t : reshape(t, [conditions, (batch * rows) / conditions, width]);
    const joined = (t: Tensor) => (conditions === batch ? t : reshape(t, x.shape));
    return {
      output: joined(adaptiveRmsNorm(split(x), modulation, { epsilon })),
      residual: undefined,
      add: (branch) => joined(gatedResidual(split(x), split(branch), modulation)),
    };
  }
}
