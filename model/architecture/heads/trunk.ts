/**
 * The trunk of a policy head turns features of control steps into others, as in RoboVLMs (Li et al. 2024, arXiv 2412.14058): an MLP of each
 * step by itself, or an LSTM or a causal transformer over the steps of a window. The parameters have RoboVLMs' names.
 */
import type { ParameterSet, Shape, Tensor } from '../../../engine/index.ts';
import {
  type AttentionTable,
  add,
  attention,
  attentionTable,
  cast,
  causal,
  lstm,
  relu,
  reshape,
  sequence,
  sliceTokens,
} from '../../../kernels/index.ts';
import {
  HEAD_DIMENSION_LIMIT,
  type Initialisation,
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
      return mlp(group, 'policy_head.mlp', [inputs, Math.floor(inputs / 2), width]);
    case 'lstm':
      return lstmTrunk(group, inputs, width, settings.layers ?? 4);
    case 'transformer': {
      const { layers = 8, heads = headsFor(width) } = settings;
      return causalTransformer(group, { inputs, window, width, layers, heads });
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
  const cannot = `cannot read features of width ${inputs}`;
  if (width % 4 !== 0) return `${cannot}: the width of its trunk is ${width}, not a multiple of 4`;
  if (settings.kind !== 'transformer') return null;
  const { heads = headsFor(width) } = settings;
  const dimension = width / heads;
  return isHeadDimension(dimension)
    ? null
    : `${cannot}: its trunk has ${heads} heads in a width of ${width}; a head needs a multiple of 4 up to ${HEAD_DIMENSION_LIMIT}`;
}

/** Affine maps with ReLU between them: [..., first width] -> [..., last width]. Their names are those of a torch.nn.Sequential. */
export function mlp(group: string, name: string, widths: readonly number[]): Trunk {
  const layers = widths
    .slice(1)
    .map((outputs, i) => new Linear(group, `${name}.${2 * i}`, { outputs, inputs: widths[i] }));
  return {
    parameters: parametersOfLayers(layers),
    outputs: widths[widths.length - 1],
    run: (values, x) => layers.reduce((hidden, layer, i) => layer.run(values, i === 0 ? hidden : relu(hidden)), x),
  };
}

/** Layers of an LSTM, the first of them over the features; see lstm.wgsl. */
function lstmTrunk(group: string, inputs: number, outputs: number, count: number): Trunk {
  const gates = 4 * outputs;
  const layers = Array.from({ length: count }, (_, i) => {
    const own = (name: string, shape: Shape, initialisation: Initialisation): ModelParameter => {
      return { name: `policy_head.rnn.${name}_l${i}`, shape, group, initialisation };
    };
    return [
      own('weight_ih', [gates, i === 0 ? inputs : outputs], 'matrix'),
      own('weight_hh', [gates, outputs], 'matrix'),
      own('bias_ih', [gates], 'zero'),
      own('bias_hh', [gates], 'zero'),
    ];
  });
  return {
    parameters: layers.flat(),
    outputs,
    run: (values, x) =>
      layers.reduce((hidden, layer) => {
        const [inputWeight, hiddenWeight, inputBias, hiddenBias] = layer.map(({ name }) => values.get(name));
        return lstm(hidden, { inputWeight, hiddenWeight, inputBias, hiddenBias });
      }, x),
  };
}

interface TransformerSizes extends Readonly<Record<'inputs' | 'window' | 'width' | 'layers' | 'heads', number>> {}

/** GPT-2 (Radford et al. 2019) over the steps of a window, after an affine map if their features have another width. */
function causalTransformer(group: string, sizes: TransformerSizes): Trunk {
  const { inputs, window, width, heads } = sizes;
  const at = 'policy_head.gpt';
  const table = attentionTable(sequence({ step: window }), { step: { step: causal } });
  const first = inputs === width ? null : new Linear(group, 'policy_head.fc', { outputs: width, inputs });
  const positions = new Table(group, `${at}.wpe`, [window, width], 'position');
  const layers = Array.from({ length: sizes.layers }, (_, i) => causalLayer(group, `${at}.h.${i}`, width, heads));
  const norm = new LayerNorm(group, `${at}.ln_f`, width, TORCH_EPSILON);
  return {
    parameters: parametersOfLayers([...(first ? [first] : []), positions, ...layers, norm]),
    outputs: width,
    run(values, x) {
      let hidden = add(first?.run(values, x) ?? x, cast(positions.rows(values), 'f32'));
      for (const layer of layers) hidden = layer.run(values, hidden, table);
      return norm.run(values, hidden);
    },
  };
}

/** x + attention(LN(x)), then x + MLP(LN(x)) */
function causalLayer(group: string, at: string, width: number, heads: number) {
  const linear = (name: string, outputs: number, inputs: number) =>
    new Linear(group, `${at}.${name}`, { outputs, inputs });
  const [before, between] = [1, 2].map((i) => new LayerNorm(group, `${at}.ln_${i}`, width, TORCH_EPSILON));
  const [project, back] = [linear('attn.c_attn', 3 * width, width), linear('attn.c_proj', width, width)];
  const [up, down] = [linear('mlp.c_fc', 4 * width, width), linear('mlp.c_proj', width, 4 * width)];
  return {
    parameters: parametersOfLayers([before, project, back, between, up, down]),
    run(values: ParameterSet, x: Tensor, table: AttentionTable): Tensor {
      const [examples, window] = x.shape;
      const joint = reshape(project.run(values, before.run(values, x)), [examples * window, 3, width]);
      const [query, key, value] = [0, 1, 2].map((part) =>
        reshape(sliceTokens(joint, part, 1), [examples, window, heads, width / heads]),
      );
      const seen = reshape(attention(query, key, value, { table }), x.shape);
      const residual = back.run(values, seen, { residual: x });
      const hidden = up.run(values, between.run(values, residual), { activation: 'gelu' });
      return down.run(values, hidden, { residual });
    },
  };
}
