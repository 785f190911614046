/** pi0 and pi0.5 as a folder that openpi's PyTorch programs open: weights, config.json, and the statistics among its assets. */
import { InputError } from '../../engine/files/errors.ts';
import { writeSafetensors } from '../../engine/files/safetensors-writer.ts';
import type { Model } from '../architecture/model.ts';
import { normalisers, toNormStats } from '../data/index.ts';
import { leRobotType, type PolicySettings, weightsOf } from './lerobot-policy.ts';
import { OPENPI_CAMERAS } from './public-policy.ts';
import { columnsBetween } from './public-statistics.ts';
import { headsOf, PUBLIC_FILE } from './public-tensors.ts';

/** The asset_id to give in openpi's AssetsConfig. */
export const ASSET = 'robot';

/** The width of actions that openpi's PyTorch model has in its source (pi0_pytorch.py). */
const DIMENSION = 32;

/**
 * Writes a policy. Cameras and text tokenizer are those that openpi has for every policy, and are not written.
 *
 * @throws InputError if openpi has no such policy, also for its sizes unless `anySizes`, or for errors of the file system
 */
export async function writeOpenpiPolicy(
  folder: string,
  model: Model,
  { encoding }: Pick<PolicySettings, 'encoding'>,
  anySizes = false,
): Promise<void> {
  const { configuration } = model;
  if (leRobotType({ configuration, encoding }, anySizes) === 'pi0_fast')
    throw new InputError('openpi has no such policy: its PyTorch programs have no pi0-FAST');
  const { cameras, statistics, robots = {} } = encoding;
  if (cameras.length > OPENPI_CAMERAS.length)
    throw new InputError(
      `openpi has no such policy: it has ${cameras.length} cameras, and there ${OPENPI_CAMERAS.length} are the most`,
    );
  if (configuration.actionDimension !== DIMENSION && !anySizes)
    throw new InputError(
      `openpi has no such policy: its actions have ${configuration.actionDimension} dimensions, and there all have ${DIMENSION}`,
    );
  const { join } = await import('node:path');
  const { ensureFolder, writeJson } = await import('../../engine/files/files.ts');
  const assets = join(folder, 'assets', ASSET);
  await ensureFolder(assets);
  const [given] = Object.values(robots);
  const { actions, states } = normalisers(statistics ?? given.statistics);
  const columns = ({ low, high }: typeof actions) => columnsBetween(Array.from(low), Array.from(high));
  const stats = { bound: Infinity, actions: columns(actions), states: states && columns(states) };
  await writeJson(join(assets, 'norm_stats.json'), toNormStats(stats));
  await writeSafetensors(join(folder, PUBLIC_FILE), weightsOf(model, 'openpi'), {
    metadata: { format: 'pt', ...headsOf(configuration) },
  });
  await writeJson(join(folder, 'config.json'), {
    ...{ action_dim: configuration.actionDimension, action_horizon: configuration.horizon },
    ...{ paligemma_variant: 'gemma_2b', action_expert_variant: 'gemma_300m' },
    precision: configuration.precision === 'bf16' ? 'bfloat16' : 'float32',
  });
}
