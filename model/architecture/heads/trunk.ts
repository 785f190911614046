/**
 * The trunk of a policy head turns features of control steps into others, as in RoboVLMs (Li et al. 2024, arXiv 2412.14058): an MLP of each
 * step by itself, or an LSTM or a causal transformer over the steps of a window. The parameters have RoboVLMs' names.
 */
import type { ParameterSet, Tensor } from '../../../engine/index.ts';
import {
  type AttentionTable,
  add,
  attention,
  attentionTable,
  causal,
  lstm,
  relu,
  reshape,
  sequence,
  sliceTokens,
} from '../../../kernels/index.ts';
import {
  HEAD_DIMENSION_LIMIT,
  isHeadDimension,
  type Layer,
  LayerNorm,
  Linear,
  type ModelParameter,
  parametersOfLayers,
  Table,
  TORCH_EPSILON,
} from '../layers.ts';
import type { TrunkSettings } from './settings.ts';

const MOST_HEADS = 8;

export interface Trunk extends Layer {
  readonly outputs: number;
  /** x [examples, window, inputs] -> [examples, window, outputs] */
  run(values: ParameterSet, x: Tensor): Tensor;
}

/** A trunk over windows of control steps. `group` is that of its parameters; see `trunkObstacle` for the sizes that it can have. */
export function trunkOf(group: string, settings: TrunkSettings, inputs: number, window: number): Trunk {
  const { width = inputs } = settings;
  switch (settings.kind) {
    case 'mlp':
      return new Mlp(group, 'policy_head.mlp', [inputs, Math.floor(inputs / 2), width]);
    case 'lstm':
      return new Lstm(group, inputs, width, settings.layers ?? 4);
    case 'transformer': {
      const { layers = 8, heads = headsFor(width) } = settings;
      return new CausalTransformer(group, { inputs, window, width, layers, heads });
    }
  }
}

/** RoboVLMs' eight heads, or as many as have a dimension that is a multiple of 4. */
const headsFor = (width: number): number => {
  const fits = (heads: number) => width % (4 * heads) === 0;
  return Array.from({ length: MOST_HEADS }, (_, i) => MOST_HEADS - i).find(fits) ?? 1;
};

/** The reason why a trunk cannot read features of this width; null if it can. */
export function trunkObstacle(settings: TrunkSettings, inputs: number): string | null {
  const { width = inputs } = settings;
  if (width % 4 !== 0) return `the width of its trunk is ${width}, not a multiple of 4`;
  if (settings.kind !== 'transformer') return null;
  const { heads = headsFor(width) } = settings;
  const dimension = width / heads;
  return isHeadDimension(dimension)
    ? null
    : `its trunk has ${heads} heads in a width of ${width}; a head needs a multiple of 4 up to ${HEAD_DIMENSION_LIMIT}`;
}

/** Affine maps with ReLU between them: [..., first width] -> [..., last width]. Their names are those of a torch.nn.Sequential. */
export class Mlp implements Trunk {
  readonly parameters;
  readonly outputs: number;
  private readonly layers: readonly Linear[];

  constructor(group: string, name: string, widths: readonly number[]) {
    this.layers = widths
      .slice(1)
      .map((outputs, i) => new Linear(group, `${name}.${2 * i}`, { outputs, inputs: widths[i] }));
    this.outputs = widths[widths.length - 1];
    this.parameters = parametersOfLayers(this.layers);
  }

  run(values: ParameterSet, x: Tensor): Tensor {
    return this.layers.reduce((hidden, layer, i) => layer.run(values, i === 0 ? hidden : relu(hidden)), x);
  }
}

/** Layers of an LSTM, the first of them over the features; see lstm.wgsl. */
class Lstm implements Trunk {
  readonly parameters: readonly ModelParameter[];

  constructor(
    group: string,
    inputs: number,
    readonly outputs: number,
    layers: number,
  ) {
    const at = 'policy_head.rnn';
    const gates = 4 * outputs;
    this.parameters = Array.from({ length: layers }, (_, i): ModelParameter[] => [
      { name: `${at}.weight_ih_l${i}`, shape: [gates, i === 0 ? inputs : outputs], group, initialisation: 'matrix' },
      { name: `${at}.weight_hh_l${i}`, shape: [gates, outputs], group, initialisation: 'matrix' },
      { name: `${at}.bias_ih_l${i}`, shape: [gates], group, initialisation: 'zero' },
      { name: `${at}.bias_hh_l${i}`, shape: [gates], group, initialisation: 'zero' },
    ]).flat();
  }

  run(values: ParameterSet, x: Tensor): Tensor {
    let hidden = x;
    for (let i = 0; i < this.parameters.length; i += 4) {
      const own = this.parameters.slice(i, i + 4).map(({ name }) => values.get(name));
      const [inputWeight, hiddenWeight, inputBias, hiddenBias] = own;
      hidden = lstm(hidden, { inputWeight, hiddenWeight, inputBias, hiddenBias });
    }
    return hidden;
  }
}

interface TransformerSizes extends Readonly<Record<'inputs' | 'window' | 'width' | 'layers' | 'heads', number>> {}

/** GPT-2 (Radford et al. 2019) over the steps of a window, after an affine map if their features have another width. */
class CausalTransformer implements Trunk {
  readonly parameters;
  readonly outputs: number;
  private readonly first: Linear | null;
  private readonly positions: Table;
  private readonly layers: readonly CausalLayer[];
  private readonly norm: LayerNorm;

  constructor(group: string, { inputs, window, width, layers, heads }: TransformerSizes) {
    const at = 'policy_head.gpt';
    const table = attentionTable(sequence({ step: window }), { step: { step: causal } });
    this.outputs = width;
    this.first = inputs === width ? null : new Linear(group, 'policy_head.fc', { outputs: width, inputs });
    this.positions = new Table(group, `${at}.wpe`, [window, width], 'position');
    this.layers = Array.from(
      { length: layers },
      (_, i) => new CausalLayer(group, `${at}.h.${i}`, { width, heads, table }),
    );
    this.norm = new LayerNorm(group, `${at}.ln_f`, width, TORCH_EPSILON);
    const first = this.first ? [this.first] : [];
    this.parameters = parametersOfLayers([...first, this.positions, ...this.layers, this.norm]);
  }

  run(values: ParameterSet, x: Tensor): Tensor {
    const embedded = add(this.first?.run(values, x) ?? x, this.positions.rows(values));
    return this.norm.run(
      values,
      this.layers.reduce((hidden, layer) => layer.run(values, hidden), embedded),
    );
  }
}

/** x + attention(LN(x)), then x + MLP(LN(x)) */
class CausalLayer implements Layer {
  readonly parameters;
  private readonly norms: readonly LayerNorm[];
  private readonly attention: readonly Linear[];
  private readonly mlp: readonly Linear[];

  constructor(
    group: string,
    at: string,
    private readonly sizes: { readonly width: number; readonly heads: number; readonly table: AttentionTable },
  ) {
    const { width } = sizes;
    const linear = (name: string, outputs: number, inputs: number) =>
      new Linear(group, `${at}.${name}`, { outputs, inputs });
    this.norms = ['ln_1', 'ln_2'].map((name) => new LayerNorm(group, `${at}.${name}`, width, TORCH_EPSILON));
    this.attention = [linear('attn.c_attn', 3 * width, width), linear('attn.c_proj', width, width)];
    this.mlp = [linear('mlp.c_fc', 4 * width, width), linear('mlp.c_proj', width, 4 * width)];
    const [before, between] = this.norms;
    this.parameters = parametersOfLayers([before, ...this.attention, between, ...this.mlp]);
  }

  run(values: ParameterSet, x: Tensor): Tensor {
    const { width, heads, table } = this.sizes;
    const [examples, window] = x.shape;
    const [project, back] = this.attention;
    const [up, down] = this.mlp;
    const joint = reshape(project.run(values, this.norms[0].run(values, x)), [examples * window, 3, width]);
    const [query, key, value] = [0, 1, 2].map((part) =>
      reshape(sliceTokens(joint, part, 1), [examples, window, heads, width / heads]),
    );
    const seen = reshape(attention(query, key, value, { table }), x.shape);
    const residual = back.run(values, seen, { residual: x });
    const hidden = up.run(values, this.norms[1].run(values, residual), { activation: 'gelu' });
    return down.run(values, hidden, { residual });
  }
}
