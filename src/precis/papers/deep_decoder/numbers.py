"""What the numbers of Deep Decoder's runs mean, a line each, for the table in `report.md`."""

FORMS = {"jpeg": "JPEG", "jpeg2000": "JPEG 2000", "webp": "WebP"}
OTHERS = {
    "noisy": "what was given",
    "total_variation": "total variation, without a network",
    "non_local_means": "non-local means, without a network",
    "bicubic": "bicubic enlargement",
    "biharmonic": "biharmonic interpolation of the hole",
}

NUMBERS = {
    "psnr": "PSNR, compress: of the decoded code against INPUT at the size worked at, else of the result against the "
            "reference (dB; high: alike)",
    "ssim": "structural similarity of the same two pictures (at most 1: alike; not given below 11 pixels a side)",
    # compress, and of the codes of --rates after the width, as in k12_psnr.
    "codes": "codes that were made, each of another width",
    "bytes": "size of the code (bytes)",
    "psnr_unrounded": "as psnr, with the weights as they were fitted, before they are rounded to bits (dB)",
    "ratio": "parameters over raw bytes: weights for each value of the picture",
    "bytes_per_pixel": "bytes of the code over the pixels of the picture",
    "bits_per_pixel": "bits of the code over the pixels of the picture",
    "raw_bytes": "size of the picture without any compression: a byte for each value (bytes)",
    **{f"psnr_{name}": f"as psnr, of a {form} of no more bytes than the code, or of as few as it can (dB)"
       for name, form in FORMS.items()},
    **{f"bytes_{name}": f"size of the {form} compared with: at most that of the code, or as small as it can be (bytes)"
       for name, form in FORMS.items()},
    "bytes_jpeg_at_equal_psnr": "size of the smallest JPEG of no lower PSNR than the code (bytes; not given: none is "
                                "as good)",
    # The decoder.
    "width": "channels of every layer of the decoder",
    "layers": "layers of the decoder (of several tiles: of the deepest)",
    "parameters": "weights of the decoder (of several tiles: of all decoders together)",
    "channels": "colour channels of the picture in the code",
    "bits": "bits that the code has for a weight",
    "height": "of the picture in the code (pixels)",
    "image_width": "of the picture in the code (pixels)",
    # denoise, superres, inpaint
    **{f"psnr_{name}": f"as psnr, of {words} (dB)" for name, words in OTHERS.items()},
    **{f"ssim_{name}": f"as ssim, of {words}" for name, words in OTHERS.items()},
    "tiles": "parts that the picture was cut into, each with a decoder of its own",
    "training_loss": "least mean squared difference from what was given, mean of the tiles (values 0 to 1)",
    "share_known": "share of the pixels that the mask says are known (0 to 1)",
    "sigma_estimated": "standard deviation of the noise as it was estimated (on the scale 0 to 255; 0: none was found)",
}  # fmt: skip
