import { actionRange, dimensions, palette, type Scene } from './scene.ts';

/** The number of physics steps, each of TIME_STEP seconds, in one control step of 0.1 s. */
export const PHYSICS_STEPS = 20;
const TIME_STEP = 0.1 / PHYSICS_STEPS;

/** The groups of geoms that the camera casts apart: those that never move and those that may. */
export const groups = { still: 0, moving: 1 } as const;

/** The number of joints of the gripper (x, y, z, left, right), which come first; the free joint of every object follows. */
export const GRIPPER_JOINTS = 5;

const rgba = (colour: readonly number[]) => `rgba="${colour.join(' ')} 1"`;

function binGeoms(x: number, y: number, colour: readonly number[]): string {
  const { bin: inner, binWall: wall, binThickness: thick } = dimensions;
  const outer = inner + thick;
  const box = (size: number[], dx: number, dy: number, z: number) =>
    `<geom type="box" size="${size.join(' ')}" pos="${x + dx} ${y + dy} ${z}" ${rgba(colour)}/>`;
  const side = inner + thick / 2;
  return [
    box([inner, inner, 0.002], 0, 0, 0.002),
    box([outer, thick / 2, wall / 2], 0, side, wall / 2),
    box([outer, thick / 2, wall / 2], 0, -side, wall / 2),
    box([thick / 2, inner, wall / 2], side, 0, wall / 2),
    box([thick / 2, inner, wall / 2], -side, 0, wall / 2),
  ].join('\n');
}

function objectBody(scene: Scene, index: number): string {
  const { shape, colour, x, y } = scene.objects[index];
  const half = dimensions.object;
  // A ball needs friction against rolling (condim 6), or a touch would send it over the table's edge.
  const geom = {
    cube: `type="box" size="${half} ${half} ${half}"`,
    ball: `type="sphere" size="${half}" condim="6"`,
    cylinder: `type="cylinder" size="${half} ${half}"`,
  }[shape];
  return `<body pos="${x} ${y} ${half}">
    <freejoint/><geom class="moving" ${geom} mass="0.05" ${rgba(palette[colour])}/>
  </body>`;
}

function finger(name: 'left' | 'right'): string {
  const side = name === 'left' ? -1 : 1;
  const half = dimensions.fingerThickness / 2;
  const height = 0.034;
  return `<body gravcomp="1">
    <joint name="${name}" type="slide" axis="${side} 0 0" range="0 ${dimensions.opening / 2}" limited="true"/>
    <geom class="moving" type="box" size="${half} 0.02 ${height}" mass="0.1" rgba="0.16 0.16 0.18 1"
      pos="${side * half} 0 ${height - dimensions.fingerBelow}"/>
  </body>`;
}

/** The MuJoCo model of a scene, in MJCF: every shape is a primitive, and nothing is read from a file. */
export function sceneToMjcf(scene: Scene): string {
  const { low, high } = actionRange;
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
    ${scene.bins.map((bin) => binGeoms(bin.x, bin.y, palette[bin.colour])).join('\n')}
    <body gravcomp="1">
      ${slides.map((slide) => slide.joint).join('\n')}
      <geom class="moving" type="box" size="0.06 0.013 0.01" pos="0 0 0.062" mass="0.5" rgba="0.95 0.95 0.97 1"/>
      ${finger('left')}
      ${finger('right')}
    </body>
    ${scene.objects.map((_, i) => objectBody(scene, i)).join('\n')}
  </worldbody>
  <actuator>
    ${slides.map((slide) => slide.actuator).join('\n')}
    <position joint="left" kp="400" dampratio="1" ctrlrange="0 ${dimensions.opening / 2}"/>
    <position joint="right" kp="400" dampratio="1" ctrlrange="0 ${dimensions.opening / 2}"/>
  </actuator>
</mujoco>`;
}
