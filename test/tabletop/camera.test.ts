import loadMujoco from '@mujoco/mujoco';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Camera } from '../../bench/tabletop/camera.ts';
import { makeScene } from '../../bench/tabletop/make-scene.ts';
import { sceneToMjcf } from '../../bench/tabletop/mjcf.ts';

type Mujoco = Awaited<ReturnType<typeof loadMujoco>>;

/** A pinhole camera, written independently of the one under test: two by two rays a pixel, all cast at all geoms. */
const eye = [0, -0.85, 1.08];
const target = [0, 0.025, 0.035];
const halfWidth = 0.16;
const light = [-0.3, -0.45, 1].map((v) => v / Math.hypot(0.3, 0.45, 1));
const rays = Array.from({ length: 128 * 128 }, (_, ray) => {
  const tilt = Math.atan2(eye[2] - target[2], target[1] - eye[1]);
  const across = (halfWidth * ((ray % 128) - 63.5)) / 64;
  const up = (-halfWidth * (Math.floor(ray / 128) - 63.5)) / 64;
  const y = Math.cos(tilt) + up * Math.sin(tilt);
  const z = up * Math.cos(tilt) - Math.sin(tilt);
  const length = Math.hypot(across, y, z);
  return [across / length, y / length, z / length];
}).flat();

describe('the camera', () => {
  let mujoco: Mujoco;
  const scene = makeScene(21);
  const release: (() => void)[] = [];
  let model: InstanceType<Mujoco['MjModel']>;
  let data: InstanceType<Mujoco['MjData']>;

  beforeAll(async () => {
    mujoco = await loadMujoco();
    model = mujoco.MjModel.from_xml_string(sceneToMjcf(scene));
    data = new mujoco.MjData(model);
    mujoco.mj_forward(model, data);
    release.push(
      () => data.delete(),
      () => model.delete(),
    );
  });
  afterAll(() => {
    for (const free of release) free();
  });

  function oracle(): Float64Array {
    const hits = new mujoco.IntBuffer(128 * 128);
    const distances = new mujoco.DoubleBuffer(128 * 128);
    const normals = new mujoco.DoubleBuffer(3 * 128 * 128);
    const every = [1, 1, 1, 1, 1, 1];
    mujoco.mj_multiRay(model, data, eye, rays, every, true, -1, hits, distances, normals, 128 * 128, 10);
    const pixels = new Float64Array(64 * 64 * 3);
    for (let ray = 0; ray < 128 * 128; ray++) {
      const geom = hits.GetView()[ray];
      const normal = normals.GetView().subarray(ray * 3, ray * 3 + 3);
      const facing = Math.max(0, normal[0] * light[0] + normal[1] * light[1] + normal[2] * light[2]);
      const pixel = Math.floor(ray / 256) * 64 + Math.floor((ray % 128) / 2);
      for (let c = 0; c < 3; c++) {
        const colour = geom < 0 ? 0 : (0.45 + 0.55 * facing) * model.geom_rgba[geom * 4 + c];
        pixels[pixel * 3 + c] += (255 * colour) / 4;
      }
    }
    for (const buffer of [hits, distances, normals]) buffer.delete();
    return pixels;
  }

  it('casts only tiles that may have changed, and makes the same picture as casting everything', () => {
    const camera = new Camera(mujoco);
    camera.prepare(model, data);
    const poses = [
      [0, 0, 0.1, 0.055, 0.055],
      [scene.objects[0].x, scene.objects[0].y, 0.025, 0.03, 0.03],
      [scene.fixtures[1].x, scene.fixtures[1].y, 0.07, 0.01, 0.05],
      [-0.2, 0.2, 0.25, 0.055, 0.055], // partly outside of the picture
    ];
    for (const pose of poses) {
      data.qpos.set(pose);
      data.qpos.set([0.02, 0.05, 0.09, 0.5, 0.5, 0.5, 0.5], 5); // the first object in the air, turned
      mujoco.mj_kinematics(model, data);
      const picture = camera.picture(model, data);
      const expected = oracle();
      // Rounding may send a ray at an edge to the other side of it: such pixels are few.
      const different = picture.filter((value, i) => Math.abs(value - expected[i]) > 0.6).length;
      expect(different).toBeLessThan(0.003 * picture.length);
    }
  });

  it('shows objects and bins in their colours where a pinhole camera sees them', () => {
    const camera = new Camera(mujoco);
    mujoco.mj_resetData(model, data);
    data.qpos.set([-0.2, -0.2, 0.25, 0.055, 0.055]); // the gripper is away from the points below
    mujoco.mj_kinematics(model, data);
    camera.prepare(model, data);
    const picture = camera.picture(model, data);
    const strongest: Record<string, number[]> = { red: [0], green: [1], blue: [2], yellow: [0, 1] };
    const distance = Math.hypot(target[1] - eye[1], target[2] - eye[2]);
    const [forwardY, forwardZ] = [(target[1] - eye[1]) / distance, (target[2] - eye[2]) / distance];
    for (const { colour, x, y } of [...scene.objects, ...scene.fixtures]) {
      const [dy, dz] = [y - eye[1], 0.02 - eye[2]];
      const depth = dy * forwardY + dz * forwardZ;
      const column = Math.floor(32 + (32 * x) / (halfWidth * depth));
      const row = Math.floor(32 - (32 * (dz * forwardY - dy * forwardZ)) / (halfWidth * depth));
      const rgb = [...picture.subarray((row * 64 + column) * 3, (row * 64 + column) * 3 + 3)];
      const high = strongest[colour].map((c) => rgb[c]);
      const low = rgb.filter((_, c) => !strongest[colour].includes(c));
      expect(Math.min(...high), `${colour} at ${x}, ${y}: ${rgb}`).toBeGreaterThan(1.5 * Math.max(...low));
    }
  });
});
