"""What the numbers of NeRF's runs mean, a line each, for the table in `report.md`."""

NUMBERS = {
    "psnr": "mean PSNR of the test views against their photographs; without test views, of photographs learned from "
            "(dB, at most 120; high: alike)",
    "ssim": "mean structural similarity of the same (at most 1: alike)",
    "test_views": "photographs kept out of training to be compared with (0: there are none)",
    "renders": "pictures made from the cameras of --render-poses",
    "depth_units_per_step": "what a step of the 16-bit depth pictures is worth (units of INPUT): times the pixel's "
                            "value it is the depth",
    "vertices": "corners of the triangles of mesh.ply (not given: no mesh was made)",
    "faces": "triangles of mesh.ply (not given: no mesh was made)",
    "steps": "training steps made",
    "parameters": "trained numbers in networks, feature planes and hash tables",
    "model_bytes": "size of the saved networks, features and occupancy grid (bytes)",
    "grid_bytes": "to compare: what a dense grid of density and colour over the box would take, its voxels as wide as "
                  "a pixel (bytes)",
    "planes_bytes": "to compare: what LLFF would store, 32 RGBA planes for each photograph learned from (bytes)",
}  # fmt: skip
