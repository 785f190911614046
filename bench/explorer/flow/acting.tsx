import { Check, Figure, Legend, Slider } from '../parts.tsx';
import type { Lab } from './lab.ts';
import { Scene } from './scene.tsx';

const EPISODES = 10;

/** Each side's policy in the same scene. */
export function Acting(props: {
  lab: Lab;
  acts: boolean;
  scene: number;
  nameOf(index: number): string;
  change(part: { acts?: boolean; scene?: number }): void;
}) {
  const { lab, acts, scene, nameOf, change } = props;
  return (
    <Figure
      title="The robot acts beside the training"
      see="The camera's picture with the way that the predicted chunk leads the gripper, and the demonstrator's from the same place. At first they part; as it learns they meet."
    >
      <div class="flow-scenes">
        {lab.sides.map(({ shown, acted }, index) => (
          <div key={index}>
            <p class="small">{nameOf(index)}</p>
            <Scene
              label={`Camera picture of ${nameOf(index)}`}
              image={shown?.observation.image}
              paths={[shown?.predicted ?? [], shown?.demonstrated ?? []]}
            />
            <p class="flow-words">
              {shown ? `“${shown.observation.instruction}”, control step ${shown.step}` : 'It has not acted yet.'}
            </p>
            <p class="flow-words" aria-live="polite">
              {acted &&
                shown === acted.last &&
                (acted.episodes > 1
                  ? `${acted.succeeded} of ${acted.episodes} scenes succeeded.`
                  : `In the end: ${acted.outcome}.`)}
            </p>
          </div>
        ))}
      </div>
      <Legend
        items={[
          { text: 'predicted', fill: 'var(--line1)' },
          { text: 'demonstrator (dashed)', fill: 'var(--line2)' },
        ]}
      />
      <div class="controls">
        <button type="button" disabled={lab.acting} onClick={() => lab.act(1)}>
          Act in this scene
        </button>
        <button type="button" disabled={lab.acting} onClick={() => lab.act(EPISODES)}>
          Count successes in {EPISODES} scenes
        </button>
        <Slider label="Scene" value={scene} min={0} max={20} onChange={(own) => change({ scene: own })} />
        <Check label="acts after each measurement" checked={acts} onChange={(own) => change({ acts: own })} />
      </div>
    </Figure>
  );
}
