terraform {
  required_version = ">= 1.11"

  required_providers {
    datadog = {
      source  = "DataDog/datadog"
      version = ">= 3.40, < 5"
    }
  }
}

provider "datadog" {
  api_key = var.ddg_api_key
  app_key = var.ddg_app_key
  api_url = "https://api.${local.ddg_site}/"
}
