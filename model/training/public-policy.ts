/** pi0, pi0.5 and pi0-FAST of openpi and LeRobot as policies that act here: with the statistics and cameras that lie beside their weights. */
import { InputError } from '../../engine/files/errors.ts';
import type { ActionTokenizer } from '../../tokenizers/index.ts';
import { ownSlotMap } from '../data/index.ts';
import type { EncodingSettings } from '../policy/encoding.ts';
import { about, readTokenizer } from '../policy/tokenizer-file.ts';
import type { Checkpoint } from './checkpoint.ts';
import { checkEncoding } from './checkpoint-check.ts';
import { emptyHistory } from './history.ts';
import { openPublicModel, type PublicModel, type PublicOptions } from './public-model.ts';
import { ACTION, CAMERA, publicStatistics, relativeDimensions, STATE } from './public-statistics.ts';
import { EMBEDDING } from './public-tensors.ts';
import { runSettings } from './run-settings.ts';
import { loadModel } from './saved-model.ts';

/** The cameras of openpi's models. */
export const OPENPI_CAMERAS = ['base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb'];
/** The name of the robot of a policy whose actions are padded. */
const ROBOT = 'robot';

export interface PublicPolicyOptions extends PublicOptions {
  /** Control steps per second, which no such folder records. */
  readonly rate?: number;
  /** Control steps in a chunk, of a file without config.json. */
  readonly horizon?: number;
  /** A norm_stats.json of openpi; LeRobot's folders have their own. */
  readonly statistics?: string;
  /** The FAST tokenizer of a pi0-FAST: a published folder, or a file of `insula tokenize fit`. */
  readonly tokenizer?: string;
}

/** The folder of the FAST tokenizer in those that Insula writes. */
export const ACTION_TOKENIZER = 'action_tokenizer';

/** @throws InputError if the policy is none that `openPublicModel` opens, or its statistics are missing or of another robot */
export async function openPublicPolicy(path: string, options: PublicPolicyOptions): Promise<Checkpoint> {
  const model = await openPublicModel(path, options);
  try {
    return await policyOf(model, options);
  } catch (error) {
    await model.tensors.close();
    throw error;
  }
}

async function policyOf(
  model: PublicModel,
  { rate, horizon: given, statistics: named, tokenizer, partial }: PublicPolicyOptions,
) {
  const { tensors, system, config } = model;
  const { name } = tensors;
  if (config.model_type !== undefined || !tensors.has(EMBEDDING))
    throw new InputError(`${name}: PaliGemma or SigLIP, no policy: begin from it with insula train --from`);
  if (rate === undefined)
    throw new InputError(`${name}: it does not record its control steps per second: give them with --rate`);
  const horizon = config.chunk_size ?? config.action_horizon ?? given;
  if (horizon === undefined)
    throw new InputError(`${name}: no config.json says the control steps in a chunk: give them with --horizon`);
  const features = Object.entries(config.input_features ?? {});
  const seen = features.flatMap(([key, { type }]) => (type === 'VISUAL' ? [key.replace(CAMERA, '')] : []));
  const cameras = config.input_features ? seen : OPENPI_CAMERAS;
  if (cameras.length === 0) throw new InputError(`${name}: its config.json names no camera`);
  const { statistics, source } = await publicStatistics(model, named);
  const [actions, states] = [statistics.actions, statistics.states].map((own) => own?.mean.length ?? 0);
  const actionDimension = model.actionDimension ?? actions;
  const stateDimension = model.actionDimension ?? states;
  for (const [what, stated, own] of [
    ['actions', config.output_features?.[ACTION]?.shape[0], actions],
    ['states', config.input_features?.[STATE]?.shape[0], states],
  ] as const)
    if (own > Math.max(actionDimension, stateDimension) || (stated !== undefined && stated !== own))
      throw new InputError(
        `${source}: statistics of ${own} dimensions of ${what}, and the policy has ${stated ?? actionDimension}: of another robot?`,
      );
  const isPadded = actions < actionDimension || states < stateDimension;
  const relative = await relativeDimensions(model, actions, states);
  const plain = ownSlotMap({ name: ROBOT, actionDimension: actions, stateDimension: states }, actionDimension);
  const slots = { ...plain, actions: plain.actions.map((slot, i) => ({ ...slot, relative: relative?.[i] ?? false })) };
  const encoding: EncodingSettings = {
    ...{ ...model.encoding, prompt: model.encoding.prompt ?? 'pi0-fast' },
    cameras,
    statistics: isPadded ? null : statistics,
    ...(isPadded && { robots: { [ROBOT]: { slots, statistics } } }),
    ...(relative && !isPadded && { relative }),
    actions: system === 'pi0-fast' ? (await fastTokenizer(model, tokenizer)).toJSON() : null,
  };
  if (system !== 'pi0-fast' && tokenizer !== undefined)
    throw new InputError(`--tokenizer: ${system} has no action tokens; leave it out`);
  const { dtype } = tensors.entry(
    'paligemma_with_expert.paligemma.model.language_model.layers.0.self_attn.q_proj.weight',
  );
  const precision = dtype === 'BF16' ? 'bf16' : 'f32';
  const sizes = { precision, actionDimension, stateDimension } as const;
  const configuration = model.configuration(cameras.length, horizon, sizes);
  about(name, () => checkEncoding(encoding, configuration));
  const data = { name, rate, actionDimension, stateDimension, cameras, instructions: 0 };
  return {
    path: name,
    settings: {
      run: runSettings({ system, preset: model.preset, steps: 0, precision }),
      data: { ...data, weights: null, statistics: null },
      configuration,
      encoding,
      adapter: 'unknown',
      variants: { attention: [], matmul: [] },
    },
    progress: { step: 0, history: emptyHistory() },
    loadModel: (device) => loadModel(tensors, device, configuration, partial),
    loadOptimizer() {
      throw new InputError(`${name}: it has no optimizer's moments: begin from it with insula train --from`);
    },
    verify: () => tensors.verify(),
    close: () => tensors.close(),
  } satisfies Checkpoint;
}

async function fastTokenizer({ tensors: { name }, folder }: PublicModel, given?: string): Promise<ActionTokenizer> {
  const { kindOfPath } = await import('../../engine/files/files.ts');
  const own = `${folder}/${ACTION_TOKENIZER}`;
  const path = given ?? ((await kindOfPath(own)) === null ? undefined : own);
  if (path === undefined)
    throw new InputError(`${name}: name the folder of its FAST tokenizer with --tokenizer, which is not in its own`);
  return (await readTokenizer(path)).tokenizer;
}
