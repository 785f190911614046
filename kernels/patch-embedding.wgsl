// Patches of images as rows: what a vision transformer's first convolution sees.       Dosovitskiy et al. 2020, arXiv 2010.11929
//
//   patches[n, token, (c P + i) P + j] = images[n, row P + i, column P + j, c],      token = row columns + column
//
// so that the patch embedding is patches weight^T + bias + position, weight [out, 3, P, P] read as [out, 3 P P]. The map is one to
// one, and backward is its inverse:  dImages[n, y, x, c] = dPatches[n, token, (c P + i) P + j].
//
// Shapes: images, dImages [N, H, W, 3]; patches, dPatches [N, rows columns, 3 P P]; P, the patch's side, divides H and W. f32.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const CHANNELS: u32 = 3u;

struct Shape { elements: u32, height: u32, width: u32, side: u32 }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> images: array<f32>;
@group(0) @binding(2) var<storage, read_write> patches: array<f32>;
@group(0) @binding(3) var<storage, read> dPatches: array<f32>;
@group(0) @binding(4) var<storage, read_write> dImages: array<f32>;

// The grid is two-dimensional because one axis holds at most 65,535 workgroups.
fn position(workgroup: vec3u, workgroups: vec3u, thread: u32) -> u32 {
  return (workgroup.y * workgroups.x + workgroup.x) * THREADS + thread;
}

// Where an element of the images lies in the patches.
fn placeInPatches(element: u32) -> u32 {
  let channel = element % CHANNELS;
  let pixel = element / CHANNELS;
  let x = pixel % shape.width;
  let y = pixel / shape.width % shape.height;
  let image = pixel / (shape.width * shape.height);
  let columns = shape.width / shape.side;
  let token = (image * (shape.height / shape.side) + y / shape.side) * columns + x / shape.side;
  return ((token * CHANNELS + channel) * shape.side + y % shape.side) * shape.side + x % shape.side;
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let element = position(workgroup, workgroups, thread);
  if (element < shape.elements) { patches[placeInPatches(element)] = images[element]; }
}

@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) workgroups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let element = position(workgroup, workgroups, thread);
  if (element < shape.elements) { dImages[element] = dPatches[placeInPatches(element)]; }
}
