/** The scenes of the built-in world that a command is about: --task and --variation. */
import { closedLoopMeasure } from '../bench/tabletop/evaluation.ts';
import { type SceneSettings, tasks, type Variation, variations } from '../bench/tabletop/scene.ts';
import type { RunSettings } from '../model/training/run-settings.ts';
import { choice, choices, type Option } from './options.ts';

export const kinds = Object.keys(variations) as Variation[];
export const ALL = 'all';

const taskNames = choices(`tasks of the built-in world: ${tasks.join(', ')}; place by default`, tasks, {
  excludes: 'data',
});
const variationName = choice(`scenes of the built-in world: ${kinds.join(', ')}; simple by default`, kinds, {
  excludes: 'data',
});

/** The run's settings hold plain text, because they know nothing of the world. */
export const sceneOptions = {
  task: { ...taskNames, read: (given) => taskNames.read(given).join(',') } as Option<string>,
  variation: variationName as Option<string>,
};

export const evaluatedSceneOptions = {
  task: { ...sceneOptions.task, help: `${tasks.join(', ')}: tasks to evaluate; those of the training by default` },
  variation: choice<string>(
    `scenes: ${kinds.join(', ')}, or ${ALL}; those of the training by default, ${ALL} for a vision-language model`,
    [...kinds, ALL],
    {
      excludes: 'data',
    },
  ),
};

type SceneChoice = Partial<Pick<RunSettings, 'task' | 'variation'>>;

/** The kinds of scenes of a training run: they take turns. */
export function scenesOf({ task, variation }: SceneChoice): SceneSettings[] {
  const own = variationName.read([variation ?? 'simple']);
  return taskNames.read([task ?? 'place']).map((name) => ({ task: name, variation: own }));
}

/** The kinds of scenes to evaluate one by one. */
export function scenesToEvaluate({ task, variation }: SceneChoice, run: SceneChoice): SceneSettings[] {
  const chosen = variation ?? run.variation;
  const all = chosen === ALL ? kinds : [chosen];
  return all.flatMap((own) => scenesOf({ task: task ?? run.task, variation: own }));
}

/** Scenes as words, such as "place and press, rich", and the meaning of their rates. */
export function describeScenes(scenes: readonly SceneSettings[]): { scenes: string; measure: string } {
  const named = [...new Set(scenes.map(({ task }) => task))];
  return {
    scenes: `${named.join(' and ')}, ${scenes[0].variation}`,
    measure: named.map((task) => (named.length > 1 ? `${task}: ` : '') + closedLoopMeasure(task)).join('; '),
  };
}
