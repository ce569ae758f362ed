"""What the numbers of deep image prior's runs mean, a line each, for the table in `report.md`."""

OTHERS = {
    "average": "the average of the last outputs of the fit",
    "last": "the output of the last step",
    "tv": "total variation, without a network",
    "nlm": "non-local means, without a network",
    "bicubic": "bicubic enlargement",
    "biharmonic": "biharmonic interpolation of the hole",
    "flash": "the picture with flash",
    "given": "what was given (superres: each pixel as a square; inpaint: black where unknown)",
}

NUMBERS = {
    "psnr": "PSNR of the result, all pixels, against the reference; invert: of the picture found, against INPUT (dB; "
            "high: alike)",
    "ssim": "structural similarity of the same two pictures (at most 1: alike; not given below 11 pixels a side)",
    **{f"psnr_{name}": f"as psnr, of {words} (dB)" for name, words in OTHERS.items()},
    **{f"ssim_{name}": f"as ssim, of {words}" for name, words in OTHERS.items()},
    "psnr_luma": "as psnr, of the grey values and without a border of four pixels (dB)",
    "psnr_luma_bicubic": "the same of bicubic enlargement (dB)",
    "stopped_at": "step whose average is the result, mean of all fits (0: nothing was fitted)",
    "loss": "mean squared difference of the first fit from what was given, at its last step (values 0 to 1)",
    "sigma": "standard deviation of the noise, given or estimated (on the scale 0 to 255; 0: none was found)",
    "known": "share of the pixels that the mask says are known (0 to 1)",
    # invert
    "feature_error": "summed squares of the difference of the layer's activations over those of INPUT's (0: equal)",
    "features": "activations of the layer that was inverted",
    # curves
    "shuffled_over_natural": "error of a fit to shuffled pixels over that of a fit to the picture, geometric mean over "
                             "all steps (1: equally fast)",
    "log_error_natural": "mean over all steps of log(MSE / variance) of a fit to the picture (low: fitted fast)",
    "log_error_noisy": "the same of a fit to the picture with noise of half its deviation",
    "log_error_shuffled": "the same of a fit to the picture with its pixels shuffled",
    "log_error_noise": "the same of a fit to noise",
}  # fmt: skip
