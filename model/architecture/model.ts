import { type Device, ParameterSet, type Tensor, tensor } from '../../engine/index.ts';
import {
  add,
  concatenateTokens,
  embedding,
  linear,
  reshape,
  rotaryTable,
  sliceTokens,
  swish,
  timeEmbedding,
} from '../../kernels/index.ts';
import {
  type BlockSettings,
  jointPositions,
  jointValidity,
  type ModelConfiguration,
  tableOf,
  tokensPerImage,
  type ValidityByBlock,
} from './configuration.ts';
import { initialise } from './initialise.ts';
import { type MixturePass, type MixtureResult, type PerExpert, runMixture } from './mixture.ts';
import { parametersOf, prefixes } from './parameters.ts';
import { encodeImages } from './vision.ts';

/** Token ids of one block, padded on the right: both [batch, length]. */
export interface Ids {
  readonly ids: ArrayLike<number>;
  readonly valid: ArrayLike<number>;
}

/** What a policy sees, for a batch. */
export interface Observation {
  readonly batch: number;
  /** [batch, cameras, height, width, 3] in [-1, 1]; null where the model has no image block. */
  readonly images: Float32Array | null;
  /** [batch, cameras], 0 where the camera is absent. */
  readonly cameraValid: ArrayLike<number> | null;
  /** By block name. */
  readonly ids: Readonly<Record<string, Ids>>;
  /** [batch, stateDimension], normalised; for systems whose state is a token of the expert. */
  readonly state: Float32Array | null;
}

export interface RunOptions extends Partial<Pick<MixturePass, 'condition' | 'lossBlocks' | 'cache'>> {
  /** Blocks whose keys and values lie in the cache, before those that run. */
  cached?: readonly string[];
  /** Blocks and edges other than the model's own, for decoding. */
  configuration?: ModelConfiguration;
}

/** A vision-language-action model: its parameters, and how inputs become token sequences. */
export class Model implements Disposable {
  readonly parameters: ParameterSet;

  constructor(
    readonly device: Device,
    readonly configuration: ModelConfiguration,
  ) {
    this.parameters = new ParameterSet(device, parametersOf(configuration));
  }

  initialise(seed: number): void {
    initialise(this.parameters, parametersOf(this.configuration), seed);
  }

  get embeddingTable(): Tensor {
    return this.parameters.get(`${prefixes.backbone}.embed_tokens.weight`);
  }

  block(name: string): BlockSettings {
    const found = this.configuration.blocks.find((block) => block.name === name);
    if (!found) throw new Error(`the model has no block '${name}'`);
    return found;
  }

  private validity({ batch, cameraValid, ids }: Observation, { blocks }: ModelConfiguration): ValidityByBlock {
    const byBlock: Record<string, ArrayLike<number>> = {};
    for (const { name, input, length } of blocks) {
      if (input === 'ids' && ids[name]) byBlock[name] = ids[name].valid;
      if (input !== 'images' || !cameraValid) continue;
      const perImage = tokensPerImage(this.configuration.vision!);
      byBlock[name] = Uint8Array.from({ length: batch * length }, (_, i) => cameraValid[Math.floor(i / perImage)]);
    }
    return byBlock;
  }

  /** Input of the backbone: its blocks among `names`, in order; null where it has none. */
  embed(observation: Observation, names: readonly string[]): Tensor | null {
    const { device, parameters, configuration } = this;
    const { backbone, vision } = configuration;
    const { batch, images, ids } = observation;
    const parts = configuration.blocks
      .filter((block) => block.weights === 'backbone' && names.includes(block.name))
      .map(({ name, input, length }) => {
        if (input === 'images') {
          if (!images || !vision) throw new Error(`the block '${name}' needs images`);
          const shape = [batch, vision.cameras, vision.imageHeight, vision.imageWidth, 3];
          return encodeImages(parameters, vision, tensor(device, images, shape));
        }
        if (input !== 'ids' || !ids[name]) throw new Error(`the block '${name}' needs token ids`);
        const own = tensor(device, Uint32Array.from(ids[name].ids), [batch, length], { dtype: 'u32' });
        return embedding(own, this.embeddingTable, { scale: Math.sqrt(backbone.width) });
      });
    if (parts.length === 0) return null;
    return parts.length === 1 ? parts[0] : concatenateTokens(parts);
  }

  /**
   * Input of the expert for noisy actions [batch, horizon, actionDimension] at `times`, and the condition of its adaptive norms.
   * With concatenated time, the state token comes first where the system has one.
   */
  embedActions(
    noisy: Tensor,
    times: ArrayLike<number>,
    state: Float32Array | null,
  ): { input: Tensor; condition: Tensor | null } {
    const { width, time } = this.configuration.expert!;
    const batch = noisy.shape[0];
    const actions = this.affine(noisy, 'action_in_proj');
    const phi = timeEmbedding(times, width);
    let input = actions;
    let condition: Tensor | null = null;
    if (time === 'adaptive') {
      const embedded = tensor(this.device, phi, [batch, width]);
      condition = swish(this.affine(swish(this.affine(embedded, 'time_mlp_in')), 'time_mlp_out'));
    } else {
      input = this.affine(
        swish(this.affine(this.besideTime(actions, phi), 'action_time_mlp_in')),
        'action_time_mlp_out',
      );
    }
    const stateBlock = this.configuration.blocks.find((block) => block.input === 'state');
    if (!stateBlock) return { input, condition };
    if (!state) throw new Error(`the block '${stateBlock.name}' needs a state`);
    const own = tensor(this.device, state, [batch, stateBlock.length, this.configuration.stateDimension]);
    return { input: concatenateTokens([this.affine(own, 'state_proj'), input]), condition };
  }

  /** Velocity [batch, horizon, actionDimension] from the expert's final hidden states, of which the actions are the last rows. */
  velocity(hidden: Tensor): Tensor {
    const { horizon } = this.configuration;
    const rows = hidden.shape[1];
    const actions = rows === horizon ? hidden : sliceTokens(hidden, rows - horizon, horizon);
    return this.affine(actions, 'action_out_proj');
  }

  /** The mixture over `blocks`, which attend to themselves and to the blocks of `cached` before them. */
  run(
    observation: Observation,
    blocks: readonly string[],
    inputs: PerExpert<Tensor>,
    options: RunOptions = {},
  ): MixtureResult {
    const { device, parameters } = this;
    const { condition = null, lossBlocks, cache, cached = [], configuration = this.configuration } = options;
    const { batch } = observation;
    const validity = this.validity(observation, configuration);
    const table = tableOf(configuration, [...cached, ...blocks]);
    const positions = jointPositions(configuration, blocks, batch, validity);
    const rows = positions.length / batch;
    const { headDimension } = configuration;
    return runMixture({
      parameters,
      configuration,
      inputs,
      blocks,
      table,
      validity: jointValidity(table.layout.blocks, batch, validity),
      rotaryTable: tensor(device, rotaryTable(positions, headDimension), [batch, rows, headDimension / 2, 2]),
      condition,
      lossBlocks,
      cache,
    });
  }

  dispose(): void {
    this.parameters.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  private affine(x: Tensor, name: string): Tensor {
    return linear(x, this.parameters.get(`${name}.weight`), this.parameters.get(`${name}.bias`));
  }

  /** Each action row [width] with the time embedding of its sample behind it: [batch, horizon, 2 width]. */
  private besideTime(actions: Tensor, phi: Float32Array): Tensor {
    const [batch, horizon, width] = actions.shape;
    const rows = new Float32Array(batch * horizon * width);
    for (let row = 0; row < batch * horizon; row++) {
      const sample = Math.floor(row / horizon);
      rows.set(phi.subarray(sample * width, (sample + 1) * width), row * width);
    }
    const pair = [batch * horizon, 1, width];
    const times = tensor(this.device, rows, pair);
    return reshape(concatenateTokens([reshape(actions, pair), times]), [batch, horizon, 2 * width]);
  }
}

/** Sum of the losses that a system has, each weighed: token + alpha flow. */
export function weighedSum(token: Tensor | null, flow: Tensor | null): Tensor {
  if (token && flow) return add(token, flow);
  const only = token ?? flow;
  if (!only) throw new Error('a system without a loss cannot be trained');
  return only;
}
