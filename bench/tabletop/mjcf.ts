import { actionRange, dimensions, palette, type Scene, type SceneFixture, type Shape } from './scene.ts';

/** The number of physics steps, each of TIME_STEP seconds, in one control step of 0.1 s. */
export const PHYSICS_STEPS = 20;
const TIME_STEP = 0.1 / PHYSICS_STEPS;

/** The groups of geoms that the camera casts apart: those that never move and those that may. */
export const groups = { still: 0, moving: 1 } as const;

/**
 * The number of joints of the gripper (x, y, z, left, right), which come first; the free joint of every object follows,
 * then the joint of every button or drawer.
 */
export const GRIPPER_JOINTS = 5;

/** The geom of the ground, on which the camera paints table and floor. */
export const GROUND = 0;

const rgba = (colour: readonly number[], factor = 1) => `rgba="${colour.map((part) => part * factor).join(' ')} 1"`;

/** Half sizes in metres along x, y and z of the parts of objects. */
const half = dimensions.object;
const solids: Readonly<Record<Shape, { readonly height: number; readonly geoms: readonly string[] }>> = {
  cube: { height: half, geoms: [`type="box" size="${half} ${half} ${half}"`] },
  // A ball needs friction against rolling (condim 6), or a touch would send it over the table's edge.
  ball: { height: half, geoms: [`type="sphere" size="${half}" condim="6"`] },
  cylinder: { height: half, geoms: [`type="cylinder" size="${half} ${half}"`] },
  block: { height: 0.018, geoms: [`type="box" size="${half} 0.042 0.018"`] },
  cross: { height: 0.02, geoms: [`type="box" size="${half} 0.009 0.02"`, `type="box" size="0.009 ${half} 0.02"`] },
};

/** The height of an object's centre above the table on which it lies, in metres. */
export const restingHeight = (shape: Shape): number => solids[shape].height;

function objectBody({ objects }: Scene, index: number): string {
  const { noun, colour, x, y } = objects[index];
  const { height, geoms } = solids[noun];
  const all = geoms.map(
    (geom) => `<geom class="moving" ${geom} mass="${0.05 / geoms.length}" ${rgba(palette[colour])}/>`,
  );
  return `<body pos="${x} ${y} ${height}"><freejoint/>${all.join('')}</body>`;
}

function bin({ x, y, colour }: SceneFixture): string {
  const { bin: inner, binWall: wall, binThickness: thick } = dimensions;
  const outer = inner + thick;
  const box = (size: number[], dx: number, dy: number, z: number) =>
    `<geom type="box" size="${size.join(' ')}" pos="${x + dx} ${y + dy} ${z}" ${rgba(palette[colour])}/>`;
  const side = inner + thick / 2;
  return [
    box([inner, inner, 0.002], 0, 0, 0.002),
    box([outer, thick / 2, wall / 2], 0, side, wall / 2),
    box([outer, thick / 2, wall / 2], 0, -side, wall / 2),
    box([thick / 2, inner, wall / 2], side, 0, wall / 2),
    box([thick / 2, inner, wall / 2], -side, 0, wall / 2),
  ].join('\n');
}

/** A cap on a spring; it travels by `dimensions.buttonTravel` down into its base. */
function button({ x, y, colour }: SceneFixture, name: string): string {
  const { buttonTop, buttonTravel: travel } = dimensions;
  return `<geom type="box" size="0.034 0.034 0.006" pos="${x} ${y} 0.006" rgba="0.3 0.3 0.33 1"/>
  <body name="${name}" pos="${x} ${y} ${buttonTop - 0.008}">
    <joint type="slide" axis="0 0 -1" range="0 ${travel}" limited="true" stiffness="60" springref="-0.004" damping="2"/>
    <geom class="moving" type="cylinder" size="0.026 0.008" mass="0.02" ${rgba(palette[colour])}/>
  </body>`;
}

/** A cabinet with a drawer, which slides towards the camera, and an upright handle in front of it. */
function drawer({ x, y, colour }: SceneFixture, name: string): string {
  const { drawerTravel: travel, handle } = dimensions;
  const own = palette[colour];
  const box = (words: string, size: string, pos: string, shade: number) =>
    `<geom ${words} type="box" size="${size}" pos="${pos}" ${rgba(own, shade)}/>`;
  return `${box('', '0.056 0.05 0.004', `${x} ${y} 0.05`, 0.7)}
  ${box('', '0.004 0.05 0.023', `${x - 0.052} ${y} 0.023`, 0.7)}
  ${box('', '0.004 0.05 0.023', `${x + 0.052} ${y} 0.023`, 0.7)}
  <body name="${name}" pos="${x} ${y} 0.024">
    <joint type="slide" axis="0 -1 0" range="0 ${travel}" limited="true" damping="8" frictionloss="0.3"/>
    ${box('class="moving" mass="0.1"', '0.046 0.048 0.018', '0 0 0', 0.85)}
    ${box('class="moving" mass="0.02"', '0.006 0.016 0.006', '0 -0.064 0', 0.85)}
    ${box('class="moving" mass="0.02"', `${handle.half} 0.008 0.02`, `0 ${-handle.before} 0`, 1)}
  </body>`;
}

const fixtureOf = { bin, button, drawer } as const;

function finger(name: 'left' | 'right'): string {
  const side = name === 'left' ? -1 : 1;
  const thick = dimensions.fingerThickness / 2;
  const height = 0.034;
  return `<body gravcomp="1">
    <joint name="${name}" type="slide" axis="${side} 0 0" range="0 ${dimensions.opening / 2}" limited="true"/>
    <geom class="moving" type="box" size="${thick} 0.02 ${height}" mass="0.1" rgba="0.16 0.16 0.18 1"
      pos="${side * thick} 0 ${height - dimensions.fingerBelow}"/>
  </body>`;
}

/** The MuJoCo model of a scene, in MJCF: every shape is a primitive, and nothing is read from a file. */
export function sceneToMjcf(scene: Scene): string {
  const { low, high } = actionRange;
  // Bins come before everything that moves and all else behind it, so that joints of objects follow those of the gripper.
  const [bins, movable] = [true, false].map((wanted) =>
    scene.fixtures.filter(({ noun }) => (noun === 'bin') === wanted),
  );
  const slides = ['x', 'y', 'z'].map((name, i) => {
    const axis = [0, 1, 2].map((j) => (i === j ? 1 : 0)).join(' ');
    return {
      joint: `<joint name="${name}" type="slide" axis="${axis}"/>`,
      actuator: `<position joint="${name}" kp="1000" dampratio="1" ctrlrange="${low[i]} ${high[i]}"/>`,
    };
  });
  return `<mujoco model="tabletop">
  <option timestep="${TIME_STEP}" integrator="implicitfast"/>
  <size memory="1M"/>
  <default>
    <geom condim="4" friction="1 0.01 0.002" group="${groups.still}"/>
    <default class="moving"><geom group="${groups.moving}"/></default>
  </default>
  <worldbody>
    <geom type="plane" size="1 1 1" rgba="0.72 0.7 0.66 1"/>
    ${bins.map(bin).join('\n')}
    <body gravcomp="1">
      ${slides.map((slide) => slide.joint).join('\n')}
      <geom class="moving" type="box" size="0.06 0.013 0.01" pos="0 0 0.062" mass="0.5" rgba="0.95 0.95 0.97 1"/>
      ${finger('left')}
      ${finger('right')}
    </body>
    ${scene.objects.map((_, i) => objectBody(scene, i)).join('\n')}
    ${movable.map((own, i) => fixtureOf[own.noun](own, `fixture${i}`)).join('\n')}
  </worldbody>
  <contact>${movable.map((_, i) => `<exclude body1="world" body2="fixture${i}"/>`).join('')}</contact>
  <actuator>
    ${slides.map((slide) => slide.actuator).join('\n')}
    <position joint="left" kp="400" dampratio="1" ctrlrange="0 ${dimensions.opening / 2}"/>
    <position joint="right" kp="400" dampratio="1" ctrlrange="0 ${dimensions.opening / 2}"/>
  </actuator>
</mujoco>`;
}
