"""What the numbers of SIREN's runs mean, a line each, for the table in `report.md`."""

NUMBERS = {
    # Pictures and clips.
    "psnr": "PSNR of what the net gives against INPUT at the size worked at; blend: against the exact composite (dB, "
            "peak 1; high: alike)",
    "ssim": "structural similarity of the same two pictures (at most 1: alike; not given below 11 pixels a side)",
    "psnr_gradient": "PSNR of the gradient of the net's grey values against central differences of INPUT's (dB; the "
                     "peak is the range of these)",
    "psnr_laplacian": "the same of the Laplacian, against five-point differences (dB)",
    "psnr_exact": "as psnr, of the exact least-squares picture with the same derivatives, by the cosine transform (dB)",
    "psnr_to_bicubic": "PSNR of the resampled picture against bicubic interpolation: how far apart they are, not which "
                       "is better (dB)",
    "clipped": "share of the exact composite's values that lie below black or above white (0 to 1)",
    "height": "of the resampled picture (pixels)",
    "width": "of the resampled picture (pixels)",
    "frames": "video: frames of the result; wave: frames drawn",
    "fps": "frames a second of the result",
    "pixels": "pixels of all frames together that were fitted",
    # The net.
    "parameters": "weights and biases of the net; prior: of encoder and hypernetwork, which make the nets",
    "model_bytes": "size of model.safetensors (bytes)",
    "bytes_per_pixel": "model bytes over the pixels of INPUT at the size worked at",
    "source_bytes": "size of INPUT's file (bytes)",
    "source_bytes_per_pixel": "source bytes over the pixels of INPUT as it is stored",
    # Sounds.
    "snr": "power of the sound over that of its difference from what the net gives (dB, −120 to 120; high: alike)",
    "mse": "mean squared difference of the same two, the sound's peak being 1",
    "seconds": "length of the sound (s)",
    "rate": "samples a second of the sound",
    "channels": "channels of the sound",
    # Shapes.
    "mean_distance": "mean absolute value of the function at INPUT's points, where it should be 0 (in units of INPUT)",
    "normal_error_degrees": "mean angle between the function's gradient and the normals at the points (degrees, 0 to "
                            "180; low: alike)",
    "eikonal_error": "mean difference of the gradient's length from 1 at random places of the box (0: a distance "
                     "everywhere)",
    "vertices": "corners of the triangles of mesh.ply",
    "faces": "triangles of mesh.ply",
    "area": "surface of mesh.ply (units of INPUT, squared)",
    "volume": "inside of mesh.ply (units of INPUT, cubed; means something where the mesh is closed)",
    # Equations.
    "relative_error": "size of the difference from finite differences over the size of these (0: equal); helmholtz: in "
                      "the inner half, wave: out of reach of the border",
    "residual": "training loss at the last step: what the equation (wave: and the start) leaves over, weighted, summed "
                "over a batch",
    "until": "time up to which the wave was solved for (s)",
    # Priors: n is the number of pixels shown, as in mse_100.
    "mse_n": "mean squared error of held-out pictures completed from so many random pixels (values 0 to 1; low: alike)",
    "mse_n_knn": "the same of the mean of the five training pictures that are nearest in the pixels shown",
    "train_images": "pictures learned from",
    "held_out_images": "pictures kept out of training",
}  # fmt: skip
