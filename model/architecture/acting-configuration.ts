/** The part of a configuration that acting needs. */
import { InputError, reasonOf } from '../../engine/files/errors.ts';
import type { BlockInput, ModelConfiguration } from './configuration.ts';
import { Architecture } from './model.ts';
import { actingObjective, blocksRun, objectivesOf } from './objectives/index.ts';

/**
 * Without auxiliary objectives, without the blocks and experts that only they use, and without rules of training.
 *
 * @throws InputError if nothing would be left that acts, or if what is left cannot run
 */
export function actingConfiguration({ rules: _, ...trained }: ModelConfiguration): ModelConfiguration {
  const objectives = trained.objectives.filter(({ auxiliary }) => !auxiliary);
  const reduced = objectives.length < trained.objectives.length ? withoutUnused(trained, objectives) : trained;
  try {
    if (actingObjective(new Architecture(reduced).objectives)) return reduced;
  } catch (error) {
    throw new InputError(`without its auxiliary objectives, ${reasonOf(error)}`);
  }
  throw new InputError('no objective that is exported acts; the others are auxiliary');
}

function withoutUnused(trained: ModelConfiguration, objectives: ModelConfiguration['objectives']): ModelConfiguration {
  const used = new Set<string>();
  const use = (names: readonly string[]) => {
    for (const { name, after } of blocksRun(trained, names)) {
      if (used.has(name)) continue;
      used.add(name);
      // Positions count the tokens of the blocks before.
      use(after);
    }
  };
  const holding = (input: BlockInput) =>
    trained.blocks.filter((block) => block.input === input).map(({ name }) => name);
  // The ids of action tokens are part of the vocabulary, so that a block for them stays.
  use(holding('target'));
  for (const { blocks, reads = blocks } of objectivesOf({ ...trained, objectives })) use(reads);
  if (objectives.some((own) => 'rows' in own && 'tower' in own.rows)) use(holding('images'));
  const blocks = trained.blocks.filter(({ name }) => used.has(name));
  const runs = (expert: string) => expert === 'backbone' || blocks.some(({ weights }) => weights === expert);
  const { lora, ...others } = trained;
  const adapted = lora?.experts.filter(runs) ?? [];
  return {
    ...others,
    ...(lora && adapted.length > 0 && { lora: { ...lora, experts: adapted } }),
    experts: Object.fromEntries(Object.entries(trained.experts).filter(([name]) => runs(name))),
    blocks,
    edges: trained.edges.filter(({ query, key }) => used.has(query) && used.has(key)),
    objectives,
  };
}
