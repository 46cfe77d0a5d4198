from hypothesis import settings

# A slow or shared machine is no failure of the code.
settings.register_profile("reflux", deadline=None)
settings.load_profile("reflux")
