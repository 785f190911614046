/** The first rows of blocks. Each kind of input has its numbers from the host, its parameters, and the rows that it makes of them. */
import { type ParameterSet, type Tensor, zeroTensor } from '../../engine/index.ts';
import { add, cast, concatenateTokens, embedding, reshape } from '../../kernels/index.ts';
import { backboneOf } from './backbones/index.ts';
import { type BlockSettings, type ModelConfiguration, sourceOf, stepsInSequence } from './configuration.ts';
import {
  expectBelow,
  floats,
  type Inputs,
  type InputTensors,
  inputNamed,
  integers,
  type ObservationBatch,
  repeated,
} from './inputs.ts';
import { type Layer, Linear, Table } from './layers.ts';
import type { PerExpert } from './mixture.ts';
import { type Vision, visionOf } from './vision.ts';

const BACKBONE = 'backbone';

/** The first rows of each expert that runs, those of memory by block, and the features of the vision towers. */
export interface FirstRows {
  readonly rows: PerExpert<Tensor>;
  readonly memory: Readonly<Record<string, Tensor>>;
  readonly features: Readonly<Record<string, Tensor>>;
}

export class BlockInputs {
  readonly vision: Vision | null;
  readonly tokens: Table;
  /** Affine maps of state and numbers, and learned rows, by block. */
  private readonly own: Readonly<Record<string, Linear | Table>>;

  constructor(private readonly configuration: ModelConfiguration) {
    const { experts, vocabulary, vision, blocks } = configuration;
    const family = backboneOf(configuration);
    const { width } = experts[BACKBONE];
    this.vision = vision && visionOf(vision, family, width, configuration.precision);
    this.tokens = new Table(BACKBONE, family.names.embedding, [vocabulary, width], 'embedding');
    this.own = Object.fromEntries(
      blocks.flatMap((block) => {
        const layer = ownLayer(configuration, block);
        return layer ? [[block.name, layer]] : [];
      }),
    );
  }

  /** The layers of images and token ids, whose parameters come first. */
  get embeddings(): readonly Layer[] {
    return this.vision ? [this.vision, this.tokens] : [this.tokens];
  }

  /** The layers of state, numbers and learned rows. */
  get layers(): readonly Layer[] {
    return Object.values(this.own);
  }

  /** The inputs of the blocks of a pass, in which blocks that are repeated have copies. Those of noisy actions and of their time come from their objective. */
  inputs(
    { batch, images, ids, numbers = {} }: ObservationBatch,
    blocks: readonly BlockSettings[],
    { copies }: { copies: boolean } = { copies: false },
  ): Inputs {
    const { vision } = this.configuration;
    const inputs: Record<string, Inputs[string]> = {};
    for (const block of blocks) {
      const { name, input, length, repeats = 1 } = block;
      const source = sourceOf(block);
      if (input === 'images' && images && vision)
        inputs.images = floats(images, [batch, vision.cameras, vision.imageHeight, vision.imageWidth, 3]);
      if ((input === 'prompt' || input === 'target') && ids[source]) {
        expectBelow(`ids/${name}`, ids[source].ids, ids[source].valid, this.configuration.vocabulary);
        inputs[`ids/${name}`] = integers(ids[source].ids, [batch, length]);
      }
      const dimension = dimensionOf(this.configuration, block);
      if (dimension === null || !numbers[source]) continue;
      const own = copies ? repeated(numbers[source], batch, repeats) : numbers[source];
      inputs[`numbers/${name}`] = floats(own, [copies ? batch * repeats : batch, length, dimension]);
    }
    return inputs;
  }

  /** The first rows of the experts that the blocks run through; `given` holds those of noisy actions and of their time. */
  run(
    values: ParameterSet,
    inputs: InputTensors,
    blocks: readonly BlockSettings[],
    given: Readonly<Record<string, Tensor>> = {},
  ): FirstRows {
    const parts: Record<string, Tensor[]> = {};
    const memory: Record<string, Tensor> = {};
    let features: FirstRows['features'] = {};
    for (const block of blocks) {
      let rows: Tensor;
      if (block.input === 'images') {
        const seen = this.vision!.run(values, inputNamed(inputs, 'images'));
        features = seen.features;
        rows = seen.tokens;
      } else rows = given[block.name] ?? this.rowsOf(values, inputs, block);
      rows = cast(rows, this.configuration.precision ?? 'f32');
      if (block.memory) memory[block.name] = rows;
      else parts[block.weights] = [...(parts[block.weights] ?? []), rows];
    }
    const joined = ([expert, own]: [string, Tensor[]]) => [expert, own.length === 1 ? own[0] : together(own)];
    return { rows: Object.fromEntries(Object.entries(parts).map(joined)), memory, features };
  }

  /** First rows [batch, length, width] of token ids. */
  embedIds(values: ParameterSet, ids: Tensor): Tensor {
    const { width } = this.configuration.experts[BACKBONE];
    const scale = backboneOf(this.configuration).embeddingScale(width);
    return embedding(ids, this.tokens.rows(values), { scale, dtype: this.configuration.precision ?? 'f32' });
  }

  private rowsOf(values: ParameterSet, inputs: InputTensors, { name, input, length, weights }: BlockSettings): Tensor {
    if (input === 'prompt' || input === 'target') return this.embedIds(values, inputNamed(inputs, `ids/${name}`));
    const own = this.own[name];
    if (own instanceof Linear) return own.run(values, inputNamed(inputs, `numbers/${name}`));
    if (!own && input !== 'zeros')
      throw new Error(`block '${name}' needs an objective that gives it noisy actions or their time`);
    const batch = inputNamed(inputs, 'validity').shape[0] * stepsInSequence(this.configuration);
    const { width } = this.configuration.experts[weights];
    const zeros = zeroTensor(values.device, [batch, length, width], 'f32', 'rows of zeros');
    return own ? add(zeros, cast(own.rows(values), 'f32')) : zeros;
  }
}

/**
 * Rows [batch, rows, width] of blocks one after another. Where the blocks are copied together, the numbers of one are
 * [batch * copies, rows, width], and each copy has rows of every block.
 */
function together(parts: readonly Tensor[]): Tensor {
  const [batch, chunks] = [Math.min, Math.max].map((most) => most(...parts.map(({ shape }) => shape[0])));
  if (batch === chunks) return concatenateTokens(parts);
  const width = parts[0].shape[2];
  const ofCopies = parts.map((part) => reshape(part, [chunks, part.size / (chunks * width), width]));
  const joined = concatenateTokens(ofCopies);
  return reshape(joined, [batch, joined.size / (batch * width), width]);
}

/** Numbers in a row of a block; null if it is not made of numbers. */
function dimensionOf({ stateDimension }: ModelConfiguration, { input, dimension }: BlockSettings): number | null {
  if (input === 'state') return stateDimension;
  return input === 'numbers' ? (dimension ?? null) : null;
}

function ownLayer(configuration: ModelConfiguration, block: BlockSettings): Linear | Table | null {
  const { name, input, weights, length } = block;
  const { width } = configuration.experts[weights];
  if (input === 'learned') return new Table(weights, `${name}_embedding`, [length, width], 'zero');
  const inputs = dimensionOf(configuration, block);
  if (inputs === null) return null;
  return new Linear(weights, input === 'state' ? 'state_proj' : `${name}_proj`, { outputs: width, inputs });
}
