"""What the numbers of Nerfies' runs mean, a line each, for the table in `report.md`."""

NUMBERS = {
    "psnr_validation": "mean PSNR of photographs kept out of training against what is drawn of their instants (dB, at "
                       "most 120; high: alike)",
    "ssim_validation": "mean structural similarity of the same (at most 1: alike)",
    "psnr_train": "mean PSNR of the photographs learned from (dB, at most 120; high: alike)",
    "ssim_train": "mean structural similarity of the same (at most 1: alike)",
    "validation_photographs": "photographs kept out of training to be compared with (0: there are none)",
    "codes": "instants that are told apart, each with a deformation of its own unless --warp none",
    "steps": "training steps made",
    "depth_units_per_step": "what a step of the 16-bit depth pictures is worth (units of INPUT): times the pixel's "
                            "value it is the depth",
    "mean_log_stretch": "mean absolute log of the factors by which the deformation stretches, in some training "
                        "photographs (0: rigid)",
    "mean_deformation": "how far it carries what their pixels show, on average, those that show nothing counted at the "
                        "far end (units of INPUT)",
    "most_moved_pixels": "99 % of the surface that they show is carried by at most so many widths of a pixel there",
}  # fmt: skip
