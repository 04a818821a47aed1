"""Downloads pictures with a pool of processes: the tutorial changes only the line of the pool."""

from concurrent import futures

from one_after_another import get_image, main, save_image, show


def download_single(image_name):
    image = get_image(image_name)
    save_image(image, image_name)
    show(image)
    return image_name


def download_multiple(image_name_list):
    with futures.ProcessPoolExecutor() as executor:
        res = executor.map(download_single, sorted(image_name_list))
    return len(list(res))


if __name__ == "__main__":
    main(download_multiple)
