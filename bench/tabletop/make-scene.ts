import { randomStream, streams } from '../../engine/random.ts';
import { fillTemplate, worldLanguage } from '../../tokenizers/index.ts';
import { type Draws, drawsOf, heldOutLooks, plainLook, trainingLook } from './look.ts';
import {
  type Colour,
  colours,
  dimensions,
  draws,
  fixtureOf,
  heldOutPairs,
  isHeldOut,
  type Scene,
  type SceneFixture,
  type SceneObject,
  type SceneSettings,
  type Shape,
  shapes,
  simplePlacing,
} from './scene.ts';

/** The simple world has the first of the colours and shapes. */
const simple = { colours: colours.slice(0, 4), shapes: shapes.slice(0, 3) } as const;

/** The scene of an episode; every choice is uniform. Variations of one seed differ in what they vary alone. */
export function makeScene(seed: number, settings: SceneSettings = simplePlacing): Scene {
  const { variation } = settings;
  const own = drawsOf(randomStream(seed, draws.scene, streams.world));
  const scene = variation === 'rich' ? richScene(own, settings) : simpleScene(own, settings);
  const varied = drawsOf(randomStream(seed, draws.look, streams.world));
  if (variation === 'rich') return { ...scene, look: trainingLook(varied) };
  if (variation === 'pairs') return withPair(scene, varied);
  if (variation === 'distractors') return withDistractors(scene, varied);
  return variation in heldOutLooks
    ? { ...scene, look: heldOutLooks[variation as keyof typeof heldOutLooks](varied) }
    : scene;
}

function some<T>({ integer }: Draws, from: readonly T[], count: number): T[] {
  const rest = [...from];
  return Array.from({ length: count }, () => rest.splice(integer(rest.length), 1)[0]);
}

/** The shape, or, of a pair that is held out, the next. */
function trainedShape(colour: Colour, shape: Shape, from: readonly Shape[]): Shape {
  return isHeldOut(`${colour} ${shape}`) ? from[(from.indexOf(shape) + 1) % from.length] : shape;
}

/** Two or three objects of different colours in the front half of the table, two fixtures of different colours in the back half. */
function simpleScene(own: Draws, settings: SceneSettings): Scene {
  const { between, integer } = own;
  const count = 2 + integer(2);
  const slots = some(own, [-0.13, 0, 0.13], count);
  const objects = some(own, simple.colours, count).map((colour, i) => ({
    noun: trainedShape(colour, simple.shapes[integer(simple.shapes.length)], simple.shapes),
    colour,
    x: slots[i] + between(-0.018, 0.018),
    y: between(-0.16, -0.06),
  }));
  const fixtures = fixturesOf(own, settings, simple.colours);
  const [object, fixture] = [integer(count), integer(2)];
  const { trained, heldOut } = worldLanguage.templates[settings.task];
  const templates = settings.variation === 'words' ? heldOut : trained.slice(0, 3);
  const forms = templates.map((template) => ({ template, synonyms: false }));
  return begun(own, settings, { objects, fixtures, object, fixture, forms });
}

function fixturesOf(own: Draws, { task }: SceneSettings, from: readonly Colour[]): SceneFixture[] {
  return some(own, from, 2).map((colour, i) => ({
    noun: fixtureOf[task],
    colour,
    x: (i === 0 ? -1 : 1) * own.between(0.07, 0.14),
    // A drawer stands further back, because its handle stands out and comes forward.
    y: task === 'open' ? own.between(0.12, 0.15) : own.between(0.07, 0.14),
  }));
}

/** Six places of objects in two rows, far enough apart for the gripper; y of the rows' middles. */
const rows = [-0.156, -0.058];
const places = rows.flatMap((y) => [-0.13, 0, 0.13].map((x) => ({ x, y })));

/** Near one of these places. */
const near = ({ between }: Draws, { x, y }: { x: number; y: number }) => ({
  x: x + between(-0.018, 0.018),
  y: y + between(-0.006, 0.006),
});

/** Two to five objects, no two alike; in every third scene the second has the colour of the first. */
function richScene(own: Draws, settings: SceneSettings): Scene {
  const { integer } = own;
  const count = 2 + integer(4);
  const chosen = some(own, places, count);
  const different = some(own, colours, count);
  const shared = integer(3) === 0;
  const objects: SceneObject[] = [];
  for (const [i, place] of chosen.entries()) {
    const colour = shared && i === 1 ? different[0] : different[i];
    let noun = trainedShape(colour, shapes[integer(shapes.length)], shapes);
    while (objects.some((other) => other.colour === colour && other.noun === noun))
      noun = trainedShape(colour, shapes[(shapes.indexOf(noun) + 1) % shapes.length], shapes);
    objects.push({ noun, colour, ...near(own, place) });
  }
  const fixtures = fixturesOf(own, settings, colours);
  const { trained } = worldLanguage.templates[settings.task];
  const [object, fixture] = [integer(shared ? 2 : count), integer(2)];
  const forms = trained.map((template) => ({ template, synonyms: integer(4) === 0 }));
  return begun(own, settings, { objects, fixtures, object, fixture, forms });
}

type Named = Pick<Scene, 'objects' | 'fixtures' | 'object' | 'fixture' | 'forms'>;

/** A scene with its instructions and the gripper's place. */
function begun({ between, integer }: Draws, settings: SceneSettings, named: Named): Scene {
  const paraphrase = integer(named.forms.length);
  const start = [between(-0.12, 0.12), between(-0.1, 0.07), between(0.12, 0.18), dimensions.opening] as const;
  const scene = { ...named, settings, object: settings.task === 'place' ? named.object : -1 };
  return { ...scene, instructions: instructionsOf(scene), paraphrase, start, look: plainLook };
}

function instructionsOf({ objects, fixtures, object, fixture, forms }: Named): string[] {
  return forms.map(({ template, synonyms }) => {
    const called = ({ colour, noun }: SceneObject | SceneFixture) =>
      `${colour} ${synonyms ? worldLanguage.synonyms[noun] : noun}`;
    return fillTemplate(template, {
      object: objects[object] && called(objects[object]),
      fixture: called(fixtures[fixture]),
    });
  });
}

/** The scene with other objects, or another thing that is named, and the instructions for it. */
function renamed(scene: Scene, change: Partial<Pick<Scene, 'objects' | 'object' | 'fixture'>>): Scene {
  const changed = { ...scene, ...change };
  return { ...changed, instructions: instructionsOf(changed) };
}

/** The thing that an instruction names: the object to be placed, or the bin, the button or the drawer. */
export type NamedThing = 'object' | 'fixture';

/**
 * The same scene to look at, with another goal: the same form of instruction names another object, or the other fixture.
 *
 * @throws RangeError if the task is about no object
 */
export function exchanged(scene: Scene, thing: NamedThing): Scene {
  if (thing === 'fixture') return renamed(scene, { fixture: 1 - scene.fixture });
  if (scene.object < 0) throw new RangeError(`exchanged: the task "${scene.settings.task}" names no object`);
  return renamed(scene, { object: (scene.object + 1) % scene.objects.length });
}

/** The named object, or without one the first, gets a pair of colour and shape that is held out; others give way. */
function withPair(scene: Scene, { integer }: Draws): Scene {
  const [colour, noun] = heldOutPairs[integer(3)].split(' ') as [Colour, Shape];
  const at = Math.max(0, scene.object);
  const before = scene.objects[at].colour;
  const objects = scene.objects.map((object, i) => {
    if (i === at) return { ...object, colour, noun };
    if (object.colour !== colour) return object;
    return { ...object, colour: before, noun: trainedShape(before, object.noun, simple.shapes) };
  });
  return renamed(scene, { objects });
}

/** Five objects in two rows: the named one, one of its colour, one of its shape, and two more. */
function withDistractors(scene: Scene, own: Draws): Scene {
  const named = scene.objects[Math.max(0, scene.object)];
  const chosen = some(own, places, 5);
  const nouns = simple.shapes.filter((noun) => noun !== named.noun && !isHeldOut(`${named.colour} ${noun}`));
  const others = simple.colours.filter((colour) => colour !== named.colour);
  const [other] = some(
    own,
    others.filter((colour) => !isHeldOut(`${colour} ${named.noun}`)),
    1,
  );
  const looks: Pick<SceneObject, 'colour' | 'noun'>[] = [
    named,
    { colour: named.colour, noun: nouns[own.integer(nouns.length)] },
    { colour: other, noun: named.noun },
    ...others
      .filter((colour) => colour !== other)
      .map((colour) => ({ colour, noun: trainedShape(colour, simple.shapes[own.integer(3)], simple.shapes) })),
  ];
  const objects = looks.map(({ colour, noun }, i) => ({ colour, noun, ...near(own, chosen[i]) }));
  return renamed(scene, { objects, object: Math.min(scene.object, 0) });
}
